//! Checks the dependencies of the library: their licences, their origin, and that users get none of them twice.
//!
//! Reads the output of `cargo metadata` for the locked dependencies; needs no network once they are fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

/// Licences that a program under any licence may link. One of the licences offered by a crate suffices.
const LICENCES: &[&str] = &["Apache-2.0", "MIT", "BSD-2-Clause", "ISC", "Zlib", "0BSD", "Unlicense", "Unicode-3.0"];

/// Scheme of the source of a package from a registry, and not from a repository or a folder.
const REGISTRY: &str = "registry+";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    root: String,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Kind of the dependency; `None` for one that the library itself links.
    kind: Option<String>,
}

#[test]
fn every_dependency_has_a_known_licence_and_comes_from_the_registry() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.packages.iter().filter(|package| package.id != metadata.resolve.root) {
        let licence = package.license.as_deref().unwrap_or("none");
        if !is_allowed(licence) {
            wrong.push(format!("{} {}: licence {licence}", package.name, package.version));
        }
        if !package.source.as_deref().is_some_and(|source| source.starts_with(REGISTRY)) {
            wrong.push(format!("{} {}: source {:?}", package.name, package.version, package.source));
        }
    }
    assert!(metadata.packages.len() > 20, "{} packages", metadata.packages.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn users_link_few_crates_and_none_in_two_versions() {
    let metadata = metadata();
    let linked = linked_with(&metadata);
    let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
    for package in metadata.packages.iter().filter(|package| linked.contains(package.id.as_str())) {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let twice: Vec<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(versions.len() <= 48, "{} crates: {:?}", versions.len(), versions.keys());
}

/// True if the expression offers at least one allowed licence; of several joined by `AND`, each must be allowed.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

/// Ids of the packages that a program with the default features links on this platform.
fn linked_with(metadata: &Metadata) -> BTreeSet<&str> {
    let nodes: BTreeMap<_, _> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut linked = BTreeSet::new();
    let mut open = vec![metadata.resolve.root.as_str()];
    while let Some(id) = open.pop() {
        let is_new = linked.insert(id);
        let Some(node) = nodes.get(id).filter(|_| is_new) else { continue };
        let is_linked = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        open.extend(node.deps.iter().filter(is_linked).map(|dependency| dependency.pkg.as_str()));
    }
    linked
}

fn metadata() -> Metadata {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"])
        .arg(host())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("what cargo metadata prints")
}

fn host() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo's version");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("the host").to_owned()
}
