//! The columns of each view, as they were when this was last written.
//!
//! A switch runs `create or replace view` over the view of the version before. PostgreSQL takes that only if all columns of the
//! old view come first, with the same names and types. Every test begins with an empty database, so only this one sees a change
//! that a production database would refuse at each switch, for ever.
//! `GOLDEN=write cargo test --test read_side golden` writes the file anew.

use crate::scenario::Scenario;
use projections::ReadModel;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Names and types of columns, in order, by view.
type Views = BTreeMap<String, Vec<String>>;

async fn views() -> Views {
    let scenario = Scenario::new(1).await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select table_name::text, column_name || ' ' || data_type \
         from information_schema.columns where table_schema = 'read' \
         order by table_name, ordinal_position",
    )
    .fetch_all(&scenario.pool)
    .await
    .unwrap();
    let mut views = Views::new();
    for (view, column) in columns {
        if ReadModel::ALL.iter().any(|model| view.starts_with(model.as_str())) {
            views.entry(view).or_default().push(column);
        }
    }
    views
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_views_grow_at_their_end_only() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/views.json");
    let noted: Views =
        serde_json::from_str(&fs::read_to_string(&file).unwrap_or_else(|_| "{}".to_owned()))
            .unwrap();
    let now = views().await;
    for (view, old) in &noted {
        let new = now.get(view).unwrap_or_else(|| panic!("read.{view} is gone"));
        assert!(
            new.starts_with(old),
            "read.{view}: a new column comes last, and no column is renamed, retyped, moved or \
             removed, or PostgreSQL refuses the switch to the new version (see docs/extending.md, \
             \"Rules that no compiler checks\")\n  was {old:?}\n  is  {new:?}"
        );
    }
    if std::env::var("GOLDEN").is_ok_and(|wish| wish == "write") {
        fs::write(&file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
        return;
    }
    assert_eq!(now, noted, "a view or a column is new: run this test with GOLDEN=write");
}
