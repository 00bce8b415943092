//! Finds the refused events among many, and applies all others.

use super::sieve::Sieve;
use crate::{
    facts::Facts,
    full_text,
    projection::{ApplyError, Projection},
};
use sqlx::{Connection, PgConnection};

/// Why a projection did not apply events.
pub(crate) enum Refusal {
    /// Trying again does not help.
    Refused(String),
    /// Trying again may help.
    Transient(sqlx::Error),
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Stream { stream, problem, .. } => {
                Self::Refused(format!("{stream} {problem}"))
            }
            ApplyError::Database(error) if refuses_rows(&error) => Self::Refused(full_text(&error)),
            ApplyError::Database(error) => Self::Transient(error),
        }
    }
}

/// Whether the rows are at fault: data that the database cannot store (SQLSTATE class 22, or 54000
/// for a key that is too long), a violated constraint (class 23), a row that is missing, or one
/// that cannot be decoded.
fn refuses_rows(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("22") || code.starts_with("23") || code == "54000"
        }),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
            true
        }
        _ => false,
    }
}

/// Applies all of `facts` except the refused ones and those that follow one in its stream. To find
/// them, it halves a refused part until one fact is left.
///
/// # Errors
/// When the database fails for a reason that has nothing to do with the rows.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    writer: &dyn Projection,
    facts: &Facts<'_>,
    sieve: &mut Sieve,
) -> Result<(), sqlx::Error> {
    // A stack: the earliest part of the log is on top.
    let mut parts = vec![facts.clone()];
    while let Some(part) = parts.pop() {
        let part = part.sift(|fact| sieve.lets_through(fact));
        let Some(first) = part.iter().next() else { continue };
        let mut savepoint = connection.begin().await?;
        match writer.apply(&mut savepoint, &part).await.map_err(Refusal::from) {
            Ok(()) => savepoint.commit().await?,
            Err(Refusal::Transient(error)) => return Err(error),
            Err(Refusal::Refused(reason)) => {
                savepoint.rollback().await?;
                if part.len() == 1 {
                    sieve.refused(first, &reason);
                    continue;
                }
                let (left, right) = part.halves();
                parts.extend([right, left]);
            }
        }
    }
    Ok(())
}
