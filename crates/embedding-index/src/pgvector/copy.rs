//! Encodes rows in the binary format of `COPY`, with vectors as pgvector receives them.

use half::f16;

use crate::error::{Error, Result};
use crate::item::ItemKind;

/// The columns, in the order of the fields.
pub(super) const COLUMNS: [&str; 5] = ["key", "kind", "text", "vector", "model"];
const FIELDS: i16 = 5;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// No flags, and an empty extension of the header.
const HEADER: [u8; 8] = [0; 8];
/// The length of a field that is null, and the number of fields that ends the rows.
const NULL: i32 = -1;
const END: i16 = -1;

/// The types of pgvector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VectorType {
    /// f32.
    Vector,
    /// f16.
    Halfvec,
}

impl VectorType {
    /// The type with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Vector, Self::Halfvec].into_iter().find(|kind| kind.name() == name)
    }

    /// The type's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Halfvec => "halfvec",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableRow<'a> {
    pub(crate) key: &'a str,
    pub(crate) kind: ItemKind,
    /// Images have none.
    pub(crate) text: Option<&'a str>,
    pub(crate) vector: &'a [f32],
    pub(crate) model: &'a str,
}

/// Encoded rows.
#[derive(Debug)]
pub(crate) struct CopyRows {
    vectors: VectorType,
    bytes: Vec<u8>,
    last: Option<(String, ItemKind)>,
}

impl CopyRows {
    /// No rows, with vectors of this type.
    pub(crate) fn new(vectors: VectorType) -> Self {
        Self { vectors, bytes: Vec::new(), last: None }
    }

    /// Key and kind of the last row.
    pub(super) fn last(&self) -> Option<(&str, ItemKind)> {
        self.last.as_ref().map(|(key, kind)| (key.as_str(), *kind))
    }

    /// Appends a row.
    ///
    /// # Errors
    /// If a number is too large for f16, or a field is longer than the format allows.
    pub(crate) fn push(&mut self, row: TableRow<'_>) -> Result<()> {
        if self.last.is_none() {
            self.bytes.extend(SIGNATURE);
            self.bytes.extend(HEADER);
        }
        let vector = self.vector(row)?;
        let kind = row.kind.to_string();
        let fields = [
            Some(row.key.as_bytes()),
            Some(kind.as_bytes()),
            row.text.map(str::as_bytes),
            Some(vector.as_slice()),
            Some(row.model.as_bytes()),
        ];
        self.bytes.extend(FIELDS.to_be_bytes());
        for field in fields {
            let length = match field {
                Some(bytes) => i32::try_from(bytes.len()).map_err(|_| too_long(row.key))?,
                None => NULL,
            };
            self.bytes.extend(length.to_be_bytes());
            self.bytes.extend(field.unwrap_or_default());
        }
        self.last = Some((row.key.to_owned(), row.kind));
        Ok(())
    }

    /// The dimension, a number that is not used yet, and the numbers.
    fn vector(&self, row: TableRow<'_>) -> Result<Vec<u8>> {
        let width = i16::try_from(row.vector.len()).map_err(|_| too_long(row.key))?;
        let mut bytes = [width, 0].map(i16::to_be_bytes).concat();
        match self.vectors {
            VectorType::Vector => bytes.extend(row.vector.iter().flat_map(|number| number.to_be_bytes())),
            VectorType::Halfvec => {
                for &number in row.vector {
                    let number = f16::from_f32(number);
                    if !number.is_finite() {
                        return Err(Error::NotFinite { item: row.key.to_owned() });
                    }
                    bytes.extend(number.to_be_bytes());
                }
            }
        }
        Ok(bytes)
    }

    /// All rows with the end of the format, leaving none; nothing if there are none.
    pub(super) fn take(&mut self) -> Vec<u8> {
        if self.last.take().is_some() {
            self.bytes.extend(END.to_be_bytes());
        }
        std::mem::take(&mut self.bytes)
    }
}

fn too_long(key: &str) -> Error {
    Error::Input(format!("{key}: longer than a row of a database may be"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    const ROW: TableRow<'static> =
        TableRow { key: "a", kind: ItemKind::Text, text: Some("猫"), vector: &[1., -2.5], model: "m" };

    /// The bytes that PostgreSQL's documentation of COPY and pgvector's `vector_recv` describe.
    #[test]
    fn rows_have_the_bytes_of_the_specification() -> TestResult {
        let mut rows = CopyRows::new(VectorType::Vector);
        rows.push(ROW)?;
        rows.push(TableRow { key: "b", kind: ItemKind::Image, text: None, ..ROW })?;
        assert_eq!(rows.last(), Some(("b", ItemKind::Image)));
        let vector = b"\0\0\0\x0c\0\x02\0\0\x3f\x80\0\0\xc0\x20\0\0";
        let expected = [
            &b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..],
            b"\0\x05\0\0\0\x01a\0\0\0\x04text\0\0\0\x03\xe7\x8c\xab",
            vector,
            b"\0\0\0\x01m",
            b"\0\x05\0\0\0\x01b\0\0\0\x05image\xff\xff\xff\xff",
            vector,
            b"\0\0\0\x01m",
            b"\xff\xff",
        ];
        assert_eq!(rows.take(), expected.concat());
        assert!(rows.take().is_empty() && rows.last().is_none());
        Ok(())
    }

    #[test]
    fn half_vectors_have_two_bytes_a_number() -> TestResult {
        let mut rows = CopyRows::new(VectorType::Halfvec);
        rows.push(ROW)?;
        let bytes = rows.take();
        let vector = b"\0\0\0\x08\0\x02\0\0\x3c\0\xc1\0\0\0\0\x01m\xff\xff";
        assert!(bytes.ends_with(vector), "{bytes:x?}");
        let large = rows.push(TableRow { vector: &[1e6], ..ROW });
        assert!(matches!(large, Err(Error::NotFinite { item }) if item == "a"));
        Ok(())
    }

    #[test]
    fn types_are_known_by_name() {
        assert_eq!(VectorType::from_name("halfvec"), Some(VectorType::Halfvec));
        assert_eq!(VectorType::from_name("vector"), Some(VectorType::Vector));
        assert_eq!(VectorType::from_name("bytea"), None);
    }
}
