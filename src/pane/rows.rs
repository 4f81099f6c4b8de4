//! State on its way out: one row after the other, each encoded into the same buffer.
//!
//! All rows of a hundred thousand series at once are 200 MB.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Room for a usual row, so that it is asked for once.
const ROW_BYTES_USUAL: usize = 16 * 1024;

/// Takes a row's name and what it holds.
pub type Put<'a> = &'a mut dyn FnMut(String, &[u8]);

pub struct Rows<'a> {
    buffer: Vec<u8>,
    put: Put<'a>,
}

impl Rows<'_> {
    pub fn new(put: Put<'_>) -> Rows<'_> {
        Rows { buffer: Vec::with_capacity(ROW_BYTES_USUAL), put }
    }

    /// # Errors
    /// The value cannot be encoded, which is a bug; told in words.
    pub fn put<T: Serialize + ?Sized>(&mut self, name: String, row: &T) -> Result<(), String> {
        self.buffer.clear();
        match postcard::serialize_with_flavor(row, Into(&mut self.buffer)) {
            Ok(()) => (self.put)(name, &self.buffer),
            Err(e) => return Err(format!("state {name:?} cannot be saved: {e}")),
        }
        Ok(())
    }
}

struct Into<'a>(&'a mut Vec<u8>);

impl Flavor for Into<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        match data {
            // Most numbers and many texts are that short, and copying so little is a call for nothing.
            [] => {}
            [byte] => self.0.push(*byte),
            _ => self.0.extend_from_slice(data),
        }
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
