//! Writes JSON by hand: the fleet knows its own members, and formatting is most of what an event costs.

/// One line of JSON as it grows.
pub struct Line(pub Vec<u8>);

// === impl Line ===

impl Line {
    pub fn new(capacity: usize) -> Line {
        Line(Vec::with_capacity(capacity))
    }

    /// Text that is JSON already.
    pub fn raw(&mut self, text: &str) -> &mut Line {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub fn int(&mut self, n: u64) -> &mut Line {
        self.digits(n, 1)
    }

    pub fn signed(&mut self, n: i64) -> &mut Line {
        if n < 0 {
            self.0.push(b'-');
        }
        self.digits(n.unsigned_abs(), 1)
    }

    /// A number with this many digits after the point, at most 9.
    pub fn fixed(&mut self, value: f64, decimals: u32) -> &mut Line {
        let scale = 10u64.pow(decimals.min(9));
        let whole = (value.abs() * scale as f64).round() as u64;
        if value < 0.0 && whole > 0 {
            self.0.push(b'-');
        }
        self.digits(whole / scale, 1);
        if decimals > 0 {
            self.0.push(b'.');
            self.digits(whole % scale, decimals.min(9) as usize);
        }
        self
    }

    fn digits(&mut self, mut n: u64, at_least: usize) -> &mut Line {
        let mut buffer = [b'0'; 20];
        let mut at = buffer.len();
        while n > 0 {
            at -= 1;
            buffer[at] = b'0' + (n % 10) as u8;
            n /= 10;
        }
        let at = at.min(buffer.len() - at_least);
        self.0.extend_from_slice(&buffer[at..]);
        self
    }
}

/// A string as JSON, with its quotes.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_were_meant() {
        let check = |value: f64, decimals, expected: &str| {
            let mut line = Line::new(8);
            line.fixed(value, decimals);
            assert_eq!(String::from_utf8(line.0).unwrap(), expected);
        };
        check(0.0, 2, "0.00");
        check(-0.001, 2, "0.00");
        check(-1.5, 1, "-1.5");
        check(12.3456, 3, "12.346");
        check(0.05, 4, "0.0500");
        check(7.9, 0, "8");
        let mut line = Line::new(8);
        line.int(0).raw(",").int(u64::MAX).raw(",").signed(-40);
        assert_eq!(line.0, b"0,18446744073709551615,-40");
    }
}
