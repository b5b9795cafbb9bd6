//! Rewrites the output of `pg_restore` so that it restores with the tenant's search path instead of an empty one.
//!
//! `pg_dump` writes `SELECT pg_catalog.set_config('search_path', '', false);` as an entry at the head of its archive,
//! and `pg_restore` sends that first. Then the server does not find the operator in expressions that it prints without
//! a schema, such as `IS DISTINCT FROM` or `NULLIF` over a type of an extension. This module replaces the entry in the
//! stream. The entry's length stands before it (`WriteStr` of `pg_backup_archiver.c`). An archive that was written to a
//! pipe has no offsets, so none can become wrong.

use std::io::{self, Write};

/// The entry, as every supported version writes it.
const EMPTY: &[u8] = b"SELECT pg_catalog.set_config('search_path', '', false);\n";
/// The entry must be in the first so many bytes: it is one of the first three.
const HEAD: usize = 64 << 10;

/// A writer that passes an archive on with another search path.
pub(super) struct Repath<W> {
    inner: W,
    path: String,
    /// The bytes so far; `None` once the entry was found.
    head: Option<Vec<u8>>,
}

impl<W: Write> Repath<W> {
    /// `path` is SQL: a list of quoted names.
    pub(super) fn new(inner: W, path: &str) -> Self {
        Self { inner, path: format!("SET search_path = {path};\n"), head: Some(Vec::new()) }
    }
}

/// The length of a text as the archive writes numbers: a sign byte, then four bytes.
fn length(text: &[u8]) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    [0, a, b, c, d]
}

impl<W: Write> Write for Repath<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(head) = &mut self.head else { return self.inner.write(bytes) };
        head.extend_from_slice(bytes);
        let entry = [&length(EMPTY), EMPTY].concat();
        if let Some(at) = head.windows(entry.len()).position(|window| window == entry) {
            let path = self.path.as_bytes();
            let changed = [&head[..at], &length(path), path, &head[at + entry.len()..]].concat();
            self.head = None;
            self.inner.write_all(&changed)?;
        } else if head.len() >= HEAD {
            return Err(io::Error::other("the archive sets no search path at its head"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_replaced_wherever_the_pieces_are_cut_and_nothing_else_is() {
        let archive = [b"PGDMP\x01".as_slice(), &length(EMPTY), EMPTY, b" and then rows with ", EMPTY].concat();
        let path = b"SET search_path = app, \"ext\";\n";
        let expected = [b"PGDMP\x01".as_slice(), &length(path), path, b" and then rows with ", EMPTY].concat();
        for size in 1..archive.len() {
            let mut repath = Repath::new(Vec::new(), "app, \"ext\"");
            archive.chunks(size).for_each(|piece| repath.write_all(piece).unwrap());
            assert_eq!(repath.inner, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_archive_without_the_entry_is_refused() {
        assert!(Repath::new(Vec::new(), "app").write_all(&vec![0; HEAD]).is_err());
    }
}
