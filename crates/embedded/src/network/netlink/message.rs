//! How a request is written and an answer is read: a header, then attributes, all in the machine's own
//! byte order and padded to four bytes.

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// What is left of an attribute's type without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
/// Says that an attribute holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;

/// One request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of a type, with flags beyond `NLM_F_REQUEST` and its family's fixed header.
    pub(crate) fn new(kind: u16, flags: u16, family: &[u8]) -> Self {
        let flags = flags | flag(libc::NLM_F_REQUEST);
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        // The sequence number (filled in by the socket) and the port, which the kernel knows itself.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family);
        pad(&mut bytes);
        Self { bytes }
    }

    /// The bytes to send, with their length and a sequence number.
    pub(crate) fn finish(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }

    /// Adds flags.
    pub(crate) fn add_flags(&mut self, more: u16) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// Attributes that become one attribute of something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Some bytes that stand before the attributes (`struct ifinfomsg` of a veth's other end).
    pub(crate) fn after(header: &[u8]) -> Self {
        let mut bytes = header.to_vec();
        pad(&mut bytes);
        Self { bytes }
    }
}

/// What attributes can be added to.
pub(crate) trait WithAttributes: Sized {
    /// Everything so far.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Adds an attribute.
    #[must_use]
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        put(self.bytes(), kind, value);
        self
    }

    /// Adds a number in the machine's byte order, as routes and links have them.
    #[must_use]
    fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as nf_tables has them.
    #[must_use]
    fn number_be(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a text with its closing zero.
    #[must_use]
    fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds attributes as one.
    #[must_use]
    fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.attribute(kind | NESTED, &inner.bytes)
    }
}

impl WithAttributes for Request {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl WithAttributes for Attributes {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    debug_assert!(ATTRIBUTE_HEADER + value.len() < usize::from(u16::MAX), "the attribute fits its length");
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A flag of the C library as the sixteen bits it is on the wire.
fn flag(value: i32) -> u16 {
    u16::try_from(value).unwrap_or(0)
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of one datagram; what is cut short ends them.
pub(super) fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let kind = u16_at(rest, 4)?;
        let flags = u16_at(rest, 6)?;
        let sequence = u32_at(rest, 8)?;
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, flags, sequence, body })
    })
}

/// The attributes in some bytes: type without flags, value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let inner = Attributes::new().text(1, "veth").number(2, 7);
        let request = Request::new(16, 0, &[0; 16]).nested(18, &inner).text(3, "eth0");
        let bytes = request.finish(9);
        let answer = answers(&bytes).next().unwrap();
        assert_eq!((answer.kind, answer.sequence), (16, 9));
        let body = &answer.body[16..];
        assert_eq!(find(body, 3), Some(b"eth0\0".as_slice()));
        let nested = find(body, 18).unwrap();
        assert_eq!(find(nested, 1), Some(b"veth\0".as_slice()));
        assert_eq!(find(nested, 2), Some(7_u32.to_ne_bytes().as_slice()));
    }

    #[test]
    fn what_is_cut_short_ends_the_reading() {
        let bytes = Request::new(16, 0, &[0; 16]).text(3, "eth0").finish(1);
        for end in 0..bytes.len() {
            assert_eq!(answers(&bytes[..end]).count(), 0);
        }
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
        // A length of zero must not be read for ever.
        assert_eq!(attributes(&[0, 0, 1, 0, 1, 1, 1, 1]).count(), 0);
    }
}
