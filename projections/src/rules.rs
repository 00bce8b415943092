//! Rules for read models that no compiler checks: each failure says the rule and where it is explained.

use crate::{ReadModel, projection::Template};
use events::{Event, StreamKind};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "see docs/extending.md, \"Rules that no compiler checks\"";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every read model with its template and the folder that holds it.
fn templates() -> impl Iterator<Item = (ReadModel, Template, String)> {
    let of =
        |model: ReadModel| (model, model.template(), format!("migrations/projections/{model}"));
    ReadModel::ALL.into_iter().map(of)
}

/// The text without lines that are comments.
fn code(sql: &str) -> String {
    let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A table of a template: its name, its columns in order, and the key that stands with it.
struct Table {
    name: String,
    columns: Vec<String>,
    key: Vec<String>,
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(|name| name.trim().to_owned()).collect()
}

/// The columns of a `primary key (...)`.
fn key_columns(text: &str) -> Option<Vec<String>> {
    let (_, rest) = text.split_once("primary key (")?;
    Some(names(rest.split_once(')')?.0))
}

fn tables(sql: &str) -> Vec<Table> {
    let sql = code(sql);
    let table = |text: &str| {
        let (name, body) =
            text.split_once(" (\n").expect("`create table <name> (`, and a new line");
        let (mut columns, mut key) = (Vec::new(), Vec::new());
        for line in body.lines().map(str::trim).take_while(|line| !line.starts_with(')')) {
            let first = line.split_whitespace().next().unwrap_or_default().to_owned();
            match key_columns(line) {
                Some(columns) => key = columns,
                None if line.contains("primary key") => {
                    key = vec![first.clone()];
                    columns.push(first);
                }
                None => columns.push(first),
            }
        }
        Table { name: name.to_owned(), columns, key }
    };
    sql.split("create table ").skip(1).map(table).collect()
}

/// The key that the first statement of `indexes.sql` makes, with the table it is made for.
fn first_key(template: &Template) -> Option<(String, Vec<String>)> {
    let statement = code(template.key());
    let rest = statement.trim().strip_prefix("alter table ")?;
    let (table, rest) = rest.split_once(" add ")?;
    Some((table.to_owned(), key_columns(rest)?))
}

#[test]
fn every_folder_of_templates_is_a_read_model() {
    let folders = fs::read_dir(root().join("migrations/projections")).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    let models: BTreeSet<String> = ReadModel::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(
        folders, models,
        "each folder of migrations/projections is the template of one read model, and \
         `ReadModel::ALL` in projections/src/projection.rs lists every read model: {PAGE}"
    );
    for (place, model) in ReadModel::ALL.into_iter().enumerate() {
        assert_eq!(
            model.index(),
            place,
            "{model}: `ReadModel::ALL` and the enum list the read models in the same order: {PAGE}"
        );
    }
}

#[test]
fn a_read_model_s_main_table_and_view_have_its_name() {
    for (model, template, folder) in templates() {
        let tables = tables(template.tables);
        assert!(
            tables.iter().any(|table| table.name == model.as_str()),
            "{folder}/tables.sql: one table is called `{model}`, like the read model: {PAGE}"
        );
        let views = code(template.views);
        assert!(
            views.contains(&format!("create or replace view read.{model} as\n")),
            "{folder}/views.sql: one view is called `read.{model}`, like the read model: {PAGE}"
        );
        for view in views.split("view ").skip(1) {
            assert!(
                view.starts_with(&format!("read.{model}")),
                "{folder}/views.sql: the names of all views begin with `read.{model}`: {PAGE}"
            );
        }
    }
}

/// A version is filled without indexes; its key is made first, on its own.
#[test]
fn the_first_statement_of_indexes_sql_makes_the_key() {
    for (model, template, folder) in templates() {
        let file = format!("{folder}/indexes.sql");
        let tables = tables(template.tables);
        let Some((table, _)) = first_key(&template) else {
            assert!(
                code(template.indexes).trim().is_empty() && template.rest().trim().is_empty(),
                "{file}: the first statement is `alter table {model} add primary key (...);`, and \
                 no comment in front of it contains a semicolon: {PAGE}"
            );
            for table in tables {
                assert!(
                    !table.key.is_empty(),
                    "{folder}/tables.sql: {} has no primary key, and {file} makes none: {PAGE}",
                    table.name
                );
            }
            continue;
        };
        for other in tables.iter().filter(|other| other.name != table) {
            assert!(
                !other.key.is_empty(),
                "{folder}/tables.sql: the first statement of indexes.sql makes the key of {table} \
                 only, so {} needs its `primary key` in tables.sql: {PAGE}",
                other.name
            );
        }
    }
}

/// Each statement is given `if not exists`, and half of them go to a second session.
#[test]
fn the_other_statements_of_indexes_sql_make_one_plain_index_each() {
    for (_, template, folder) in templates() {
        let file = format!("{folder}/indexes.sql");
        for line in template.indexes.lines().filter(|line| line.contains("--")) {
            assert!(
                line.starts_with("--"),
                "{file}: a comment is a line of its own that begins with `--`: {PAGE}\n{line}"
            );
        }
        let rest = code(template.rest());
        assert!(
            rest.trim().is_empty() || rest.trim_end().ends_with(';'),
            "{file}: the last statement ends with a semicolon: {PAGE}"
        );
        for statement in rest.split(';').map(str::trim).filter(|text| !text.is_empty()) {
            let index = statement.strip_prefix("create index ");
            let made = index.is_some_and(|index| {
                !["concurrently", "if not exists"].iter().any(|word| index.starts_with(word))
            });
            assert!(
                made && statement.matches("create index ").count() == 1,
                "{file}: each statement after the first is `create index <name> on ...;` in lower \
                 case, neither `unique` nor `concurrently` nor `if not exists`: {PAGE}\n{statement}"
            );
        }
    }
}

/// Rows are counted, compared and parked by partition; a differing row is shown by its first column.
#[test]
fn every_table_has_a_partition_and_begins_with_its_key() {
    for (model, template, folder) in templates() {
        let made = first_key(&template);
        for Table { name, columns, key } in tables(template.tables) {
            assert!(
                code(template.tables).lines().any(|line| {
                    let words: Vec<&str> = line.split_whitespace().take(4).collect();
                    words.join(" ").trim_end_matches(',') == "partition integer not null"
                }) && columns.contains(&"partition".to_owned()),
                "{folder}/tables.sql: {name} needs a column `partition integer not null`, the \
                 partition of the log that the row comes from: {PAGE}"
            );
            let key = match &made {
                Some((table, key)) if *table == name => key.clone(),
                _ => key,
            };
            // A row of the history says itself where its event stands.
            if model != ReadModel::History {
                assert_eq!(
                    columns.first(),
                    key.first(),
                    "{folder}/tables.sql: the first column of {name} is the first column of its \
                     key: {PAGE}"
                );
            }
            for column in &key {
                assert!(columns.contains(column), "{folder}: {name} has no column {column}");
            }
        }
    }
}

/// What a read model takes and cannot read parks the stream in it.
#[test]
fn a_read_model_takes_the_kinds_of_streams_that_it_shows() {
    for model in ReadModel::ALL {
        let writer = model.writer("no_schema");
        let taken: Vec<&str> = StreamKind::ALL
            .into_iter()
            .filter(|kind| *kind != StreamKind::Writer && writer.takes(*kind))
            .map(StreamKind::as_str)
            .collect();
        assert!(
            model == ReadModel::History || taken.len() == 1,
            "{model} takes events of {taken:?}: override `takes`, which is true for every kind \
             unless it is overridden, or a bad event of any stream parks that stream here too: \
             {PAGE}"
        );
    }
}

/// These files list read models by name, and the compiler sees none of the lists.
#[test]
fn every_list_of_read_models_is_complete() {
    let fuzzer = read(".ci/schemathesis.toml");
    let listed = fuzzer.lines().find(|line| line.starts_with("projections = ")).unwrap_or_default();
    let faults = read("bench/src/faults/check/tables.rs");
    for model in ReadModel::ALL {
        let quoted = format!("\"{model}\"");
        for (file, text) in [
            (".ci/schemathesis.toml, `projections`", listed),
            ("bench/src/faults/check/tables.rs, `MODELS`", &*faults),
        ] {
            assert!(text.contains(&quoted), "{file}: {quoted} is missing: {PAGE}");
        }
    }
}

/// The golden history tells whether other code makes the same rows: what it lacks is never compared.
#[test]
fn the_golden_history_has_every_version_of_every_event() {
    let history = read("projections/golden/history.jsonl");
    for kind in StreamKind::ALL {
        for &(name, newest) in Event::types(kind) {
            for version in 1..=newest {
                let told = format!("\"type\":\"{name}\",\"schema\":{version},");
                assert!(
                    history.contains(&told),
                    "projections/golden/history.jsonl has no {name} of version {version}: append \
                     one, then GOLDEN=write: {PAGE}"
                );
            }
        }
    }
}
