//! Small stable numbers for partitions, and a drawer of named texts.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{Error, Fault};
use super::{Store, error};

impl Store {
    /// The number of `partition` of `source` (a topic, a file): given once, the same for ever, counted from 1.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn partition_id(&self, source: &str, partition: i32) -> Result<u32, Error> {
        let known = self.read("reading a partition's number from", |c| find(c, source, partition))?;
        match known {
            Some(id) => Ok(id),
            None => {
                let source = source.to_owned();
                self.write("numbering a partition in", move |c| {
                    c.prepare_cached("INSERT INTO partitions (source, partition) VALUES (?1, ?2) ON CONFLICT (source, partition) DO NOTHING")?
                        .execute(params![source, partition])?;
                    find(c, &source, partition)?.ok_or(error::Fault::Sql(rusqlite::Error::QueryReturnedNoRows))
                })
            }
        }
    }

    /// All numbered partitions: number, source, partition.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn partitions(&self) -> Result<Vec<(u32, String, i32)>, Error> {
        self.read("reading partitions from", |c| {
            let mut statement = c.prepare_cached("SELECT id, source, partition FROM partitions ORDER BY id")?;
            let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The text that was put under `key`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get_meta(&self, key: &str) -> Result<Option<String>, Error> {
        self.read("reading meta from", |c| {
            Ok(c.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |r| r.get(0)).optional()?)
        })
    }

    /// Puts `value` under `key`, in place of what was there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), Error> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write("writing meta to", move |c| {
            c.prepare_cached("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
                .execute([&key, &value])?;
            Ok(())
        })
    }
}

fn find(c: &Connection, source: &str, partition: i32) -> Result<Option<u32>, Fault> {
    let mut statement = c.prepare_cached("SELECT id FROM partitions WHERE source = ?1 AND partition = ?2")?;
    Ok(statement.query_row(params![source, partition], |r| r.get(0)).optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_keeps_its_number() {
        let store = Store::memory().unwrap();
        let ids = [("events", 0), ("events", 1), ("other", 0), ("events", 0)].map(|(s, p)| store.partition_id(s, p).unwrap());
        assert_eq!(ids, [1, 2, 3, 1]);
        assert_eq!(store.partitions().unwrap()[1], (2, "events".to_owned(), 1));
    }

    #[test]
    fn meta_is_replaced() {
        let store = Store::memory().unwrap();
        assert_eq!(store.get_meta("k").unwrap(), None);
        store.set_meta("k", "1").unwrap();
        store.set_meta("k", "2").unwrap();
        assert_eq!(store.get_meta("k").unwrap().as_deref(), Some("2"));
    }
}
