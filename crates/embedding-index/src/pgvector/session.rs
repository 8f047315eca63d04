//! Prepares the table, and commits rows together with how far the job is.

use std::error::Error as StdError;
use std::io::Write;

use model_files::ErrorKind;
use postgres::types::ToSql;
use postgres::{Client, Row};

use super::PostgresTable;
use super::copy::{COLUMNS, CopyRows, VectorType};
use crate::error::{Error, Result};

/// Bytes sent in one message.
const MESSAGE: usize = 1 << 16;
/// The error of a job that was interrupted ends with this.
const KEPT: &str = "what was written before is kept, and the same command goes on from there";

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Texts done, with the rows of the list that have none, which the list itself counts.
    pub(crate) texts: usize,
    /// Images done.
    pub(crate) images: usize,
    /// Images among these that could not be read, and have no row.
    pub(crate) unreadable: usize,
}

/// A connection for a job.
pub(crate) struct Session {
    client: Client,
    table: PostgresTable,
    vectors: VectorType,
    /// What identifies the job.
    job: String,
}

impl Session {
    /// Connects for a job with vectors of `width` numbers by `model`, and makes the table if it is missing, with
    /// vectors of the preferred type.
    ///
    /// # Errors
    /// [`Error::Table`] if the table is for other vectors or another model, or cannot be made.
    pub(crate) fn open(
        table: &PostgresTable,
        job: String,
        width: usize,
        model: &str,
        preferred: VectorType,
    ) -> Result<Self> {
        let mut client = table.connect()?;
        let mut columns = columns_of(&mut client, table)?;
        if columns.is_empty() {
            create(&mut client, table, width, preferred)?;
            columns = columns_of(&mut client, table)?;
        }
        let vectors = vectors_of(&columns, width).map_err(|problem| refused(table, problem))?;
        check_model(&mut client, table, model)?;
        let progress = table.table.progress_sql();
        let made = client.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {progress} (job text PRIMARY KEY, texts bigint NOT NULL, \
             images bigint NOT NULL, unreadable bigint NOT NULL, last_key text, last_kind text)"
        ));
        made.map_err(|error| table.failure(&error))?;
        Ok(Self { client, table: table.clone(), vectors, job })
    }

    /// The type of the table's vectors.
    pub(crate) fn vectors(&self) -> VectorType {
        self.vectors
    }

    /// How far the job is. From the beginning if the last row that it wrote is gone, as when the table was made anew.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(crate) fn mark(&mut self) -> Result<Mark> {
        let (table, progress) = (self.table.table.sql(), self.table.table.progress_sql());
        let query = format!(
            "SELECT texts, images, unreadable FROM {progress} AS mark WHERE job = $1 AND (last_key IS NULL OR \
             EXISTS (SELECT FROM {table} WHERE key = mark.last_key AND kind = mark.last_kind))"
        );
        let found =
            self.client.query_opt(&query, &[&self.job]).map_err(|error| self.table.failure(&error))?;
        let mark = found.as_ref().map(read_mark).transpose().map_err(|error| self.table.failure(&error))?;
        Ok(mark.flatten().unwrap_or_default())
    }

    /// Writes all rows and how far the job is then, in one transaction, and leaves no rows.
    ///
    /// # Errors
    /// If the connection is lost or the server refuses; nothing of this is written then.
    pub(crate) fn commit(&mut self, rows: &mut CopyRows, mark: Mark) -> Result<()> {
        let last = rows.last().map(|(key, kind)| (key.to_owned(), kind.to_string()));
        let bytes = rows.take();
        self.try_commit(&bytes, mark, last).map_err(|error| {
            let (problem, kind) = super::describe(&*error);
            self.table.problem(format!("{problem}; {KEPT}"), kind)
        })
    }

    fn try_commit(
        &mut self,
        rows: &[u8],
        mark: Mark,
        last: Option<(String, String)>,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let (table, progress) = (self.table.table.sql(), self.table.table.progress_sql());
        let columns = COLUMNS.join(", ");
        let mut transaction = self.client.transaction()?;
        if !rows.is_empty() {
            // Rows cannot be copied over others, so they go by a table that ends with the transaction.
            transaction.batch_execute(&format!(
                "CREATE TEMPORARY TABLE altdiffusion_rows ON COMMIT DROP AS \
                 SELECT {columns} FROM {table} WITH NO DATA"
            ))?;
            let copy = format!("COPY pg_temp.altdiffusion_rows ({columns}) FROM STDIN (FORMAT BINARY)");
            let mut writer = transaction.copy_in(&copy)?;
            for message in rows.chunks(MESSAGE) {
                writer.write_all(message)?;
            }
            writer.finish()?;
            // Of rows with the same key the last counts: their place in a new table is their order. Sorted keys
            // keep two jobs that write the same ones from a deadlock.
            transaction.batch_execute(&format!(
                "INSERT INTO {table} ({columns}) SELECT DISTINCT ON (key, kind) {columns} \
                 FROM pg_temp.altdiffusion_rows ORDER BY key, kind, ctid DESC ON CONFLICT (key, kind) DO UPDATE \
                 SET text = excluded.text, vector = excluded.vector, model = excluded.model"
            ))?;
        }
        let (key, kind) = last.unzip();
        let (texts, images) = (i64::try_from(mark.texts)?, i64::try_from(mark.images)?);
        let unreadable = i64::try_from(mark.unreadable)?;
        let values: [&(dyn ToSql + Sync); 6] = [&self.job, &texts, &images, &unreadable, &key, &kind];
        let update = format!(
            "INSERT INTO {progress} AS mark (job, texts, images, unreadable, last_key, last_kind) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (job) DO UPDATE SET texts = excluded.texts, \
             images = excluded.images, unreadable = excluded.unreadable, \
             last_key = coalesce(excluded.last_key, mark.last_key), \
             last_kind = coalesce(excluded.last_kind, mark.last_kind)"
        );
        transaction.execute(&update, &values)?;
        Ok(transaction.commit()?)
    }

    /// Forgets how far the job is: it is done, or is to begin anew.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(crate) fn forget(&mut self) -> Result<()> {
        let delete = format!("DELETE FROM {} WHERE job = $1", self.table.table.progress_sql());
        let deleted = self.client.execute(&delete, &[&self.job]);
        deleted.map(drop).map_err(|error| self.table.failure(&error))
    }
}

/// The names, types and sizes of a table's columns; none if there is no such table.
fn columns_of(client: &mut Client, table: &PostgresTable) -> Result<Vec<(String, String, i32)>> {
    const QUERY: &str = "SELECT a.attname::text, t.typname::text, a.atttypmod FROM pg_attribute a \
                         JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass($1) \
                         AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = client.query(QUERY, &[&table.table.sql()]);
    let columns = rows.and_then(|rows| rows.iter().map(read_column).collect::<Result<Vec<_>, _>>());
    columns.map_err(|error| table.failure(&error))
}

fn read_column(row: &Row) -> Result<(String, String, i32), postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

fn create(client: &mut Client, table: &PostgresTable, width: usize, vectors: VectorType) -> Result<()> {
    let enabled = client.batch_execute("CREATE EXTENSION IF NOT EXISTS vector");
    enabled.map_err(|error| {
        let (problem, kind) = super::describe(&error);
        table.problem(format!("pgvector is needed, and cannot be enabled: {problem}"), kind)
    })?;
    let made = client.batch_execute(&format!(
        "CREATE TABLE IF NOT EXISTS {} (key text NOT NULL, kind text NOT NULL, text text, \
         vector {}({width}) NOT NULL, model text NOT NULL, PRIMARY KEY (key, kind))",
        table.table.sql(),
        vectors.name()
    ));
    made.map_err(|error| table.failure(&error))
}

/// The type of the vectors in a table with these columns, or why it cannot take vectors of this size.
fn vectors_of(columns: &[(String, String, i32)], width: usize) -> Result<VectorType, String> {
    let missing = COLUMNS.iter().any(|name| !columns.iter().any(|(column, ..)| column == name));
    let vector = columns.iter().find(|(name, ..)| name == "vector").filter(|_| !missing);
    let Some((_, type_name, size)) = vector else {
        let found: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
        return Err(format!("expected the columns {}, found {}", COLUMNS.join(", "), found.join(", ")));
    };
    match VectorType::from_name(type_name) {
        Some(vectors) if usize::try_from(*size) == Ok(width) => Ok(vectors),
        Some(_) if *size > 0 => {
            Err(format!("its vectors have {size} numbers, and those of the model have {width}"))
        }
        _ => Err(format!("expected a column vector of the type vector({width}), found {type_name}")),
    }
}

/// Rows come in only after this check, so those that are there have one model.
fn check_model(client: &mut Client, table: &PostgresTable, model: &str) -> Result<()> {
    let query = format!("SELECT model FROM {} LIMIT 1", table.table.sql());
    let row = client.query_opt(&query, &[]).map_err(|error| table.failure(&error))?;
    let found = row.map(|row| row.try_get::<_, String>(0)).transpose();
    match found.map_err(|error| table.failure(&error))? {
        Some(found) if found != model => {
            Err(refused(table, format!("its vectors are of the model {found}, and the model is {model}")))
        }
        _ => Ok(()),
    }
}

fn refused(table: &PostgresTable, problem: String) -> Error {
    table.problem(format!("{problem}; expected another table"), ErrorKind::Input)
}

/// Nothing if the numbers cannot be.
fn read_mark(row: &Row) -> Result<Option<Mark>, postgres::Error> {
    let number = |place: usize| row.try_get::<_, i64>(place).map(|number| usize::try_from(number).ok());
    let [texts, images, unreadable] = [number(0)?, number(1)?, number(2)?];
    let mark = texts.zip(images).zip(unreadable);
    let mark = mark.map(|((texts, images), unreadable)| Mark { texts, images, unreadable });
    Ok(mark.filter(|mark| mark.unreadable <= mark.images))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(vector: &str, size: i32) -> Vec<(String, String, i32)> {
        let column = |name: &str, kind: &str, size| (name.to_owned(), kind.to_owned(), size);
        let mut columns: Vec<_> = COLUMNS.iter().map(|name| column(name, "text", -1)).collect();
        columns[3] = column("vector", vector, size);
        columns.push(column("added", "timestamptz", -1));
        columns
    }

    #[test]
    fn tables_for_other_vectors_are_refused_by_what_they_have() {
        assert_eq!(vectors_of(&columns("vector", 128), 128), Ok(VectorType::Vector));
        assert_eq!(vectors_of(&columns("halfvec", 128), 128), Ok(VectorType::Halfvec));
        let problem = |columns: &[_]| vectors_of(columns, 128).err().unwrap_or_default();
        assert_eq!(
            problem(&columns("vector", 768)),
            "its vectors have 768 numbers, and those of the model have 128"
        );
        let expected = "expected a column vector of the type vector(128), found ";
        assert_eq!(problem(&columns("vector", -1)), format!("{expected}vector"));
        assert_eq!(problem(&columns("bytea", -1)), format!("{expected}bytea"));
        let missing = problem(&columns("vector", 128)[1..]);
        let expected =
            "expected the columns key, kind, text, vector, model, found kind, text, vector, model, added";
        assert_eq!(missing, expected);
    }
}
