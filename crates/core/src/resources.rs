//! How much of a machine one sandbox may use.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Limits and requests of one sandbox. What is `None` is left to the backend's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Processor time.
    pub cpu: Amount<Millicores>,
    /// Memory.
    pub memory: Amount<Bytes>,
    /// Files the sandbox writes outside its mounts.
    pub ephemeral_storage: Amount<Bytes>,
}

impl Resources {
    /// Below this an agent with one command does not run.
    pub const LEAST_MEMORY: Bytes = Bytes(32 << 20);
    /// Below this nothing can be installed or written.
    pub const LEAST_STORAGE: Bytes = Bytes(1 << 20);
}

/// What is set aside for a sandbox, and what it may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount<T> {
    /// Set aside; never above the limit.
    pub request: Option<T>,
    /// Never exceeded.
    pub limit: Option<T>,
}

impl<T> Default for Amount<T> {
    fn default() -> Self {
        Self { request: None, limit: None }
    }
}

/// Thousandths of one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millicores(pub u32);

impl Millicores {
    /// The least there is a use for: the kernel's scheduler gives out no smaller share.
    pub const MIN: Self = Self(10);
    /// More than any machine has.
    pub const MAX: Self = Self(4_096_000);
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The most that a limit may say: one exbibyte.
    pub const MAX: Self = Self(1 << 60);
}

/// Why a text is not a quantity, as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not a number of processors.
    #[error("must be a number of processors, like 2, 0.5 or 500m")]
    Cpu,
    /// Not a number of bytes.
    #[error("must be a number of bytes, like 512Mi, 1.5Gi or 1000000")]
    Bytes,
    /// Too little or too much.
    #[error("must be from {least} to {most}")]
    Range {
        /// The least.
        least: String,
        /// The most.
        most: String,
    },
}

impl FromStr for Millicores {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (digits, per_unit) = match text.strip_suffix('m') {
            Some(digits) => (digits, 1),
            None => (text, 1000),
        };
        let amount = scaled(digits, per_unit).ok_or(QuantityError::Cpu)?;
        let range = || QuantityError::Range { least: Self::MIN.to_string(), most: Self::MAX.to_string() };
        let amount = u32::try_from(amount).map(Self).map_err(|_| range())?;
        if (Self::MIN..=Self::MAX).contains(&amount) { Ok(amount) } else { Err(range()) }
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        const UNITS: [(&str, u64); 13] = [
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("Ti", 1 << 40),
            ("Pi", 1 << 50),
            ("Ei", 1 << 60),
            ("k", 1_000),
            ("M", 1_000_000),
            ("G", 1_000_000_000),
            ("T", 1_000_000_000_000),
            ("P", 1_000_000_000_000_000),
            ("E", 1_000_000_000_000_000_000),
            ("", 1),
        ];
        let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
        let (digits, size) = unit.ok_or(QuantityError::Bytes)?;
        let amount = scaled(digits, size).ok_or(QuantityError::Bytes)?;
        let range = || QuantityError::Range { least: "1".to_owned(), most: Self::MAX.to_string() };
        let amount = u64::try_from(amount).map(Self).map_err(|_| range())?;
        if (Self(1)..=Self::MAX).contains(&amount) { Ok(amount) } else { Err(range()) }
    }
}

/// A decimal number times the unit, rounded up as Kubernetes rounds; `None` when it is not a number. Eighteen
/// digits on either side of the point are more than any quantity needs.
fn scaled(digits: &str, unit: u64) -> Option<u128> {
    const MAX_DIGITS: usize = 18;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.len() <= MAX_DIGITS && text.bytes().all(|c| c.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let value = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let below = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = (value(fraction)? * u128::from(unit)).div_ceil(below);
    Some(value(whole)? * u128::from(unit) + parts)
}

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            _ => write!(f, "{}m", self.0),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
        match units.into_iter().find(|(_, bits)| self.0 != 0 && self.0.trailing_zeros() >= *bits) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_written_as_kubernetes_writes_them() {
        for (text, expect) in [
            ("2", Some(2000)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("500m", Some(500)),
            ("1.0001", Some(1001)),
            ("10m", Some(10)),
            ("9m", None),
            ("0", None),
            ("5000", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1e3", None),
            ("2 ", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(text.parse().ok(), expect.map(Millicores), "{text:?}");
        }
        assert_eq!(Millicores(1500).to_string(), "1500m");
        assert_eq!(Millicores(2000).to_string(), "2");
    }

    #[test]
    fn bytes_are_written_as_kubernetes_writes_them() {
        for (text, expect) in [
            ("1", Some(1)),
            ("512Mi", Some(512 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("1k", Some(1000)),
            ("0.5", Some(1)),
            ("1Ei", Some(1 << 60)),
            ("2Ei", None),
            ("0", None),
            ("", None),
            ("Gi", None),
            ("1gi", None),
            ("1GiB", None),
            ("1.2.3", None),
            ("+1", None),
            ("999999999999999999Ei", None),
        ] {
            assert_eq!(text.parse().ok(), expect.map(Bytes), "{text:?}");
        }
        assert_eq!(Bytes(3 << 29).to_string(), "1536Mi");
        assert_eq!(Bytes(1000).to_string(), "1000");
    }
}
