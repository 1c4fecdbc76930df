//! Reads struct fields and their JSON tags out of the Go sources of the API types.
//!
//! OpenAPI does not say whether a field is a pointer or carries `omitempty`, and that is what decides whether a
//! zero value, an empty list or an empty struct is seen on the wire. Only declarations are read, line by line:
//! the API packages are gofmt-ed and hold one field per line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// One field of a Go struct, as far as encoding is concerned.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// The type without its leading `*`: `[]Container`, `metav1.Time`.
    pub(crate) type_name: String,
    /// Whether the type is a pointer.
    pub(crate) pointer: bool,
    /// The tag says `omitempty`.
    pub(crate) omit_empty: bool,
    /// The tag says `omitzero`.
    pub(crate) omit_zero: bool,
}

/// Fields by JSON name, and the embedded structs that are inlined.
#[derive(Debug, Default)]
struct Struct {
    fields: BTreeMap<String, Field>,
    inlined: Vec<String>,
}

/// The structs of all packages, by definition name (`io.k8s.api.core.v1.Pod`).
#[derive(Debug, Default)]
pub(crate) struct Types(BTreeMap<String, Struct>);

/// Where the packages' sources lie in a module directory, and how OpenAPI names the package.
const EXTRA_PACKAGES: [(&str, &str, &str); 4] = [
    ("apimachinery", "pkg/apis/meta/v1", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("apimachinery", "pkg/version", "io.k8s.apimachinery.pkg.version"),
    (
        "apiextensions-apiserver",
        "pkg/apis/apiextensions/v1",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    ),
    ("kube-aggregator", "pkg/apis/apiregistration/v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1"),
];

impl Types {
    /// Reads every package below `modules` (a directory with `api@v0.36.0` and its neighbours).
    pub(crate) fn read(modules: &Path) -> Result<Self> {
        let mut types = Self::default();
        let api = module(modules, "api")?;
        for group in std::fs::read_dir(&api)? {
            let group = group?;
            if !group.file_type()?.is_dir() {
                continue;
            }
            for version in std::fs::read_dir(group.path())? {
                let version = version?;
                let package = format!(
                    "io.k8s.api.{}.{}",
                    group.file_name().to_string_lossy(),
                    version.file_name().to_string_lossy()
                );
                types.read_package(&version.path(), &package)?;
            }
        }
        for (name, folder, package) in EXTRA_PACKAGES {
            types.read_package(&module(modules, name)?.join(folder), package)?;
        }
        Ok(types)
    }

    /// The field that the JSON name stands for, looking through inlined structs.
    pub(crate) fn field(&self, definition: &str, json_name: &str) -> Option<&Field> {
        let declared = self.0.get(definition)?;
        declared.fields.get(json_name).or_else(|| {
            let package = definition.rsplit_once('.').map_or("", |(package, _)| package);
            declared.inlined.iter().find_map(|inlined| self.field(&format!("{package}.{inlined}"), json_name))
        })
    }

    fn read_package(&mut self, folder: &Path, package: &str) -> Result<()> {
        if !folder.is_dir() {
            return Ok(());
        }
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let generated =
                name.starts_with("zz_") || name.starts_with("generated") || name.ends_with("_test.go");
            if name.ends_with(".go") && !generated {
                let source = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                self.read_source(&source, package);
            }
        }
        Ok(())
    }

    fn read_source(&mut self, source: &str, package: &str) {
        let mut current: Option<(String, Struct)> = None;
        for line in source.lines() {
            match &mut current {
                None => {
                    let name = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {"));
                    current = name.map(|name| (format!("{package}.{name}"), Struct::default()));
                }
                Some(_) if line == "}" => {
                    self.0.extend(current.take());
                }
                Some((_, declared)) => declared.read_line(line.trim()),
            }
        }
    }
}

impl Struct {
    fn read_line(&mut self, line: &str) {
        let Some((declaration, tag)) = line.split_once('`').filter(|_| !line.starts_with("//")) else {
            return;
        };
        let Some(json) = tag.split_once("json:\"").and_then(|(_, rest)| rest.split('"').next()) else {
            return;
        };
        let mut options = json.split(',');
        let json_name = options.next().unwrap_or_default();
        let options: Vec<&str> = options.collect();
        let mut words = declaration.split_whitespace();
        let (name, type_name) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>().join(" "));
        if json_name.is_empty() {
            self.inlined.push(name.to_owned());
            return;
        }
        let type_name = if type_name.is_empty() { name } else { &type_name };
        let field = Field {
            type_name: type_name.trim_start_matches('*').to_owned(),
            pointer: type_name.starts_with('*'),
            omit_empty: options.contains(&"omitempty"),
            omit_zero: options.contains(&"omitzero"),
        };
        self.fields.insert(json_name.to_owned(), field);
    }
}

/// The directory of a module in any version: `api@v0.36.0`.
fn module(modules: &Path, name: &str) -> Result<std::path::PathBuf> {
    for entry in std::fs::read_dir(modules).with_context(|| modules.display().to_string())? {
        let path = entry?.path();
        let found = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if found.split('@').next() == Some(name) && path.is_dir() {
            return Ok(path);
        }
    }
    anyhow::bail!("no module {name} in {}", modules.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tags_pointers_and_inlined_structs() {
        let mut types = Types::default();
        types.read_source(
            "type Probe struct {\n\t// What to do.\n\tHandler `json:\",inline\"`\n\tDelay int32 `json:\"delay,omitempty\"`\n\
             \tGrace *int64 `json:\"grace,omitempty\" protobuf:\"x\"`\n}\n\ntype Handler struct {\n\tExec []string `json:\"exec\"`\n}\n",
            "p",
        );
        let delay = types.field("p.Probe", "delay").unwrap();
        assert!(delay.omit_empty && !delay.pointer);
        assert!(types.field("p.Probe", "grace").unwrap().pointer);
        assert_eq!(types.field("p.Probe", "exec").unwrap().type_name, "[]string");
        assert!(types.field("p.Probe", "other").is_none());
    }
}
