//! The house is tidy: rooms use only rooms above them, files say what they are for.

use std::path::{Path, PathBuf};

/// Rooms in the order of `src/lib.rs`.
fn rooms() -> Vec<String> {
    let map = std::fs::read_to_string("src/lib.rs").expect("the map");
    map.lines().filter_map(|l| l.strip_prefix("pub mod ")).map(|l| l.trim_end_matches(';').to_owned()).collect()
}

fn files(under: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            files(&entry, out);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            out.push(entry);
        }
    }
}

#[test]
fn a_room_uses_only_rooms_that_stand_above_it() {
    let rooms = rooms();
    let mut all = Vec::new();
    files(Path::new("src"), &mut all);
    let mut wrong = Vec::new();
    for file in all {
        let name = file.strip_prefix("src").expect("under src").components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let room = name.trim_end_matches(".rs").to_owned();
        let Some(at) = rooms.iter().position(|r| *r == room) else { continue };
        let text = std::fs::read_to_string(&file).expect("text");
        let product = text.split("#[cfg(test)]").next().unwrap_or("");
        for (i, other) in rooms.iter().enumerate() {
            if i > at && product.contains(&format!("crate::{other}")) {
                wrong.push(format!("{} uses {other}, which stands below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut all = Vec::new();
    for root in ["src", "tests", "detectors/src"] {
        files(Path::new(root), &mut all);
    }
    let silent: Vec<_> = all.iter().filter(|f| !std::fs::read_to_string(f).expect("text").starts_with("//!")).collect();
    assert!(silent.is_empty(), "without //! at the top: {silent:?}");
}

#[test]
fn unsafe_code_is_allowed_in_one_place() {
    let mut all = Vec::new();
    for root in ["src", "tests", "benches", "detectors/src", "detectors/benches"] {
        files(Path::new(root), &mut all);
    }
    let allowed = format!("allow({}_code)", "unsafe");
    let places: Vec<_> = all.into_iter().filter(|f| std::fs::read_to_string(f).expect("text").contains(&allowed)).collect();
    assert_eq!(places, [Path::new("detectors/src/ahead.rs")]);
}
