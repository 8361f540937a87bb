//! The tables and views, made in numbered steps (row Z04).

use sqlx::{Connection as _, sqlite::SqliteConnection};

use super::{StoreError, failure};
use crate::base::hash;

/// A step of the schema.
struct Step {
    sql: &'static str,
    /// The oldest schema whose code can still work after this step.
    needs: i64,
}

/// Never edit a step that was released: add one.
const STEPS: &[Step] = &[Step { sql: include_str!("schema.sql"), needs: 1 }];

/// Brings the database to this code's schema. Whoever comes second waits for the lock and finds it done.
pub(super) async fn install(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut tx = connection.begin_with("begin immediate").await.map_err(failure)?;
    let log = "create table if not exists mfa_schema \
               (step integer primary key, needs integer not null, checksum text not null) strict";
    sqlx::query(log).execute(&mut *tx).await.map_err(failure)?;
    let done = sqlx::query_as("select step, needs, checksum from mfa_schema order by step");
    let done: Vec<Done> = done.fetch_all(&mut *tx).await.map_err(failure)?;
    check(&done, STEPS)?;
    for (number, step) in (1_i64..).zip(STEPS).skip(done.len()) {
        sqlx::raw_sql(step.sql).execute(&mut *tx).await.map_err(failure)?;
        sqlx::query("insert into mfa_schema (step, needs, checksum) values ($1, $2, $3)")
            .bind(number)
            .bind(step.needs)
            .bind(hash::sha256_hex(step.sql.as_bytes()))
            .execute(&mut *tx)
            .await
            .map_err(failure)?;
    }
    Ok(tx.commit().await.map_err(failure)?)
}

/// A step that was taken: its number, what it needs, its checksum.
type Done = (i64, i64, String);

fn check(done: &[Done], steps: &[Step]) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if done.iter().any(|(_, needs, _)| *needs > known) {
        return Err(StoreError::broken("the schema is newer than this release can work with"));
    }
    let same = (1_i64..)
        .zip(steps)
        .zip(done)
        .all(|((number, step), (at, _, sum))| number == *at && *sum == hash::sha256_hex(step.sql.as_bytes()));
    if same { Ok(()) } else { Err(StoreError::broken("the schema is not the one that was released")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_z04_a_newer_schema_is_refused_only_if_it_says_so() {
        let steps = [Step { sql: "a", needs: 1 }, Step { sql: "b", needs: 1 }];
        let sum = |sql: &str| hash::sha256_hex(sql.as_bytes());
        let taken = [(1, 1, sum("a")), (2, 1, sum("b"))];
        for (done, fine) in [
            (vec![], true),
            (taken[..1].to_vec(), true),
            (taken.to_vec(), true),
            ([&taken[..], &[(3, 2, sum("c"))]].concat(), true),
            ([&taken[..], &[(3, 3, sum("c"))]].concat(), false),
            (vec![(1, 1, sum("other"))], false),
            (vec![(2, 1, sum("b"))], false),
        ] {
            assert_eq!(check(&done, &steps).is_ok(), fine, "{done:?}");
        }
    }
}
