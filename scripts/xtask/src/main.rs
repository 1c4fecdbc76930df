//! Developer chores: `cargo run -p xtask -- facts …` regenerates the schema facts of the built-in kinds, and
//! `numbers …` the field numbers of their protobuf messages.

mod facts;
mod golang;
mod numbers;

use std::path::Path;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo run -p xtask -- facts DEFINITIONS.json GO_MODULES_DIR OUT.json

DEFINITIONS.json  `_definitions.json` of one Kubernetes version out of PyPI's kubernetes-validate
GO_MODULES_DIR    a directory that holds k8s.io/api@VERSION, k8s.io/apimachinery@VERSION,
                  k8s.io/apiextensions-apiserver@VERSION and k8s.io/kube-aggregator@VERSION
                  (`go mod download`); their struct tags say what the JSON encoder leaves out
OUT.json          api-objects/src/schema/facts.json

       cargo run -p xtask -- numbers FACTS.json GO_MODULES_DIR OUT.txt

OUT.txt           apiserver/src/protobuf/numbers.txt";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["facts", definitions, modules, out] => {
            let types = golang::Types::read(Path::new(modules))?;
            let text = facts::generate(&std::fs::read_to_string(definitions)?, &types)?;
            std::fs::write(out, text)?;
            Ok(())
        }
        ["numbers", facts, modules, out] => {
            std::fs::write(out, numbers::generate(Path::new(facts), Path::new(modules))?)?;
            Ok(())
        }
        _ => bail!(USAGE),
    }
}
