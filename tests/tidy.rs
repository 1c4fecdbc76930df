//! The rules of the house, checked: arrows between crates, file headers, file sizes, no `unwrap`, examples.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// No file may be longer; half of that is a reason to look twice.
const MAX_LINES: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that git knows or would take, relative to the root.
fn files(ending: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git must run");
    assert!(listed.status.success(), "git ls-files failed");
    let listed = String::from_utf8(listed.stdout).expect("file names must be UTF-8");
    let files: Vec<PathBuf> = listed
        .lines()
        .filter(|name| name.ends_with(ending))
        .map(PathBuf::from)
        .filter(|path| root().join(path).exists())
        .collect();
    assert!(!files.is_empty(), "no file ends with {ending}");
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What each crate may depend on of ours; the picture is in docs/architecture.md.
fn allowed() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    BTreeMap::from([
        ("api-objects", BTreeSet::new()),
        ("client", BTreeSet::from(["api-objects"])),
        ("spdy", BTreeSet::new()),
        ("apiserver-storage", BTreeSet::new()),
        ("apiserver", BTreeSet::from(["api-objects", "client", "apiserver-storage"])),
        ("kubelet-runtime", BTreeSet::from(["api-objects"])),
        ("kubelet-network", BTreeSet::from(["api-objects"])),
        ("kubelet", BTreeSet::from(["api-objects", "client", "spdy", "kubelet-runtime", "kubelet-network"])),
        ("controller-manager", BTreeSet::from(["api-objects", "client"])),
        ("kubectl", BTreeSet::from(["api-objects", "client", "spdy"])),
        ("xtask", BTreeSet::new()),
    ])
}

/// Crates that may be used in one place only.
const CONFINED: [(&str, &[&str]); 4] = [
    ("bollard", &["kubelet-runtime"]),
    ("etcd-client", &["apiserver-storage"]),
    ("rtnetlink", &["kubelet-network"]),
    ("rdkafka", &["status-bus"]),
];

#[test]
fn arrows_between_crates() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo must run");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("metadata must be JSON");
    let packages = metadata["packages"].as_array().expect("packages must be a list");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a package must have a name");
        // Development dependencies prove things and ship nothing: only the root's tests may see everything.
        let dependencies = package["dependencies"].as_array().expect("dependencies must be a list");
        let shipped = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        for dependency in shipped.filter_map(|dependency| dependency["name"].as_str()) {
            if name != "minik8s" && ours.contains(dependency) {
                let may = allowed.get(name).unwrap_or_else(|| panic!("{name} has no place in the picture"));
                if !may.contains(dependency) {
                    wrong.push(format!("{name} -> {dependency}"));
                }
            }
            if let Some((_, places)) = CONFINED.iter().find(|(confined, _)| *confined == dependency)
                && !places.contains(&name)
            {
                wrong.push(format!("{name} -> {dependency} (confined to {places:?})"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the house does not have: {wrong:#?}");
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<_> =
        files(".rs").into_iter().filter(|path| !read(path).trim_start().starts_with("//!")).collect();
    assert!(silent.is_empty(), "files that do not open with //!: {silent:#?}");
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<_> = files(".rs")
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "files over {MAX_LINES} lines: {long:#?}");
}

#[test]
fn no_unwrap_outside_tests() {
    let mut found = Vec::new();
    for path in files(".rs") {
        let is_test = path.components().any(|part| {
            matches!(part.as_os_str().to_str(), Some("tests" | "testing" | "benches" | "examples"))
        }) || path.file_name().is_some_and(|name| name == "tests.rs" || name == "testing.rs");
        if is_test {
            continue;
        }
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            if line.contains(".unwrap()") && !line.trim_start().starts_with("//") {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "unwrap outside tests: {found:#?}");
}

#[test]
fn every_example_is_applied_by_a_test() {
    let tests: String =
        files(".rs").iter().filter(|path| path.starts_with("tests")).map(|path| read(path)).collect();
    let forgotten: Vec<_> = files("")
        .into_iter()
        .filter(|path| path.starts_with("examples"))
        .filter(|path| {
            path.extension().is_some_and(|ending| ending == "yaml" || ending == "json" || ending == "sh")
        })
        .filter(|path| {
            let name = path.to_str().expect("file names must be UTF-8");
            let folder = path.parent().and_then(Path::to_str).unwrap_or_default();
            // A whole folder is applied by its name, in quotes.
            !tests.contains(name) && !tests.contains(&format!("\"{folder}\""))
        })
        .collect();
    assert!(forgotten.is_empty(), "examples that no test applies: {forgotten:#?}");
}

#[test]
fn nothing_names_a_machine() {
    let mut found = Vec::new();
    for path in files("") {
        if path.extension().is_none_or(|ending| {
            !matches!(ending.to_str(), Some("rs" | "md" | "sh" | "toml" | "yaml" | "json"))
        }) {
            continue;
        }
        let text = read(&path);
        // Spelled in two parts, so that this file does not find itself.
        for bad in [concat!("/wo", "rk/"), concat!("/tmp/", "brief"), concat!("/tmp/", "w/")] {
            if text.contains(bad) {
                found.push(format!("{}: {bad}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "paths of one machine: {found:#?}");
}
