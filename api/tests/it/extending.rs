//! `docs/extending.md`: its examples fit the code, and the rules that it names are held by tests.

use orderlog::openapi;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The fuzzer sends the cursor of one list to another, and must know where a 400 is the right answer.
#[test]
fn the_fuzzer_knows_every_list_that_takes_a_cursor() {
    let config = fs::read_to_string(root().join(".ci/schemathesis.toml")).unwrap();
    let section = config.split("[[operations]]").find(|section| {
        section.contains("include-operation-id-regex") && section.contains("list_")
    });
    let pattern = section.unwrap().split('"').nth(1).unwrap();
    let expected = jsonschema::validator_for(&json!({ "pattern": pattern })).unwrap();
    let document = openapi::document();
    for (path, method, operation) in openapi::operations(&document) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let mut parameters = parameters.map(|it| openapi::resolve(&document, it));
        if parameters.any(|it| it["name"] == "cursor") {
            let id = &operation["operationId"];
            assert!(
                expected.is_valid(id),
                "{method} {path} takes a cursor: add {id} to the first \
                 `include-operation-id-regex` of .ci/schemathesis.toml (see docs/extending.md, \
                 \"Rules that no compiler checks\")"
            );
        }
    }
}

/// A step of a worked example: a file to create, or one to change.
struct Step {
    /// `2.4`.
    section: String,
    creates: bool,
    path: String,
    lines: Vec<String>,
}

impl Step {
    fn example(&self) -> &str {
        self.section.split('.').next().unwrap()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/extending.md")).unwrap()
}

/// What stands between the last `before` and the next back-tick.
fn named(text: &str, before: &str) -> Option<(usize, String)> {
    let at = text.rfind(before)?;
    let rest = &text[at + before.len()..];
    Some((at, rest.split('`').next().unwrap().to_owned()))
}

/// The steps of all examples, in order: code blocks, each with the file that was named last before it.
fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut section, mut text) = (Vec::new(), String::new(), String::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block = lines.by_ref().take_while(|line| *line != "```");
            let block: Vec<String> = block.map(str::to_owned).collect();
            if !["sh", "text"].contains(&language) {
                let (created, changed) = (named(&text, "Create `"), named(&text, "In `"));
                let is_new = created > changed;
                let (_, path) = created.max(changed).expect("a file is named before its code");
                let section = section.clone();
                steps.push(Step { section, creates: is_new, path, lines: block });
            }
            text.clear();
        } else if line.starts_with('#') {
            let number = line.trim_start_matches('#').split_whitespace().next().unwrap();
            number.trim_end_matches('.').clone_into(&mut section);
            text.clear();
        } else {
            text.push_str(line);
            text.push(' ');
        }
    }
    steps
}

/// The repository with the steps done so far.
#[derive(Default)]
struct Changed(BTreeMap<String, Vec<String>>);

impl Changed {
    fn carry_out(&mut self, step: &Step) {
        let Step { section, path, lines, .. } = step;
        if step.creates {
            let before = self.0.insert(path.clone(), lines.clone());
            assert!(before.is_none(), "{section}: {path} is created twice");
            return;
        }
        let there = self.0.entry(path.clone()).or_insert_with(|| {
            let text = fs::read_to_string(root().join(path));
            let text = text.unwrap_or_else(|error| panic!("{section}: {path}: {error}"));
            text.lines().map(str::to_owned).collect()
        });
        let mut from = 0;
        for hunk in lines.split(|line| line == "@@") {
            let side = |other: char| -> Vec<String> {
                let kept = hunk.iter().filter(|line| !line.starts_with(other));
                kept.map(|line| line.chars().skip(1).collect()).collect()
            };
            let (old, new) = (side('+'), side('-'));
            let find =
                |lines: &[String]| there[from..].windows(lines.len()).position(|it| it == lines);
            let Some(found) = find(&old) else {
                panic!(
                    "docs/extending.md, {section}: {path} does not contain these lines any more; \
                     mend the example\n{}",
                    old.join("\n")
                );
            };
            let at = from + found;
            there.splice(at..at + old.len(), new.iter().cloned());
            from = at + new.len();
        }
    }
}

/// Whether the first line that the example adds is there, or the file that it begins with.
fn is_carried_out(example: &[&Step]) -> bool {
    let Step { creates, path, lines, .. } = example[0];
    let text = fs::read_to_string(root().join(path));
    let mut added = lines.iter().filter_map(|line| line.strip_prefix('+'));
    match text {
        Err(_) => false,
        Ok(_) if *creates => true,
        Ok(text) => added.next().is_some_and(|added| text.lines().any(|line| line == added)),
    }
}

/// The examples fit the code as it is: each on its own, and all of them one after the other. One that
/// the reader carries out right now is left out.
#[test]
fn the_worked_examples_can_be_carried_out() {
    let steps = steps(&page());
    assert!(steps.len() > 50);
    let mut all = Changed::default();
    for example in ["1", "2", "3", "4"] {
        let own: Vec<&Step> = steps.iter().filter(|step| step.example() == example).collect();
        assert!(!own.is_empty(), "there is no example {example}");
        if is_carried_out(&own) {
            continue;
        }
        let mut alone = Changed::default();
        for step in own {
            alone.carry_out(step);
            all.carry_out(step);
        }
    }
}

/// The table of rules names tests that exist.
#[test]
fn every_rule_names_its_test() {
    let files = [
        "projections/src/rules.rs",
        "projections/tests/read_side/fold.rs",
        "projections/tests/read_side/golden.rs",
        "projections/tests/read_side/views.rs",
        "events/tests/golden.rs",
        "events/tests/schemas.rs",
        "api/tests/it/extending.rs",
    ];
    let tests: String =
        files.iter().map(|file| fs::read_to_string(root().join(file)).unwrap()).collect();
    let page = page();
    let rows = page.lines().skip_while(|line| *line != "## Rules that no compiler checks");
    let mut count = 0;
    for row in rows.filter(|line| line.starts_with("| ")).skip(1) {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in cell.split('`').skip(1).step_by(2) {
            assert!(tests.contains(&format!("fn {name}(")), "there is no test {name}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}
