//! As much of a DNS message (RFC 1035) as a forwarder has to know: who asked what, and how to say no.

/// Bytes of a header.
const HEADER: usize = 12;
/// In the third byte of a header: this is an answer.
const ANSWER: u8 = 0x80;
/// In the third byte: the kind of query.
const OPCODE: u8 = 0x78;
/// In the third byte: the answer was cut.
const CUT: u8 = 0x02;
/// In the third byte: the asker wants the whole answer, not a referral.
const RECURSION_DESIRED: u8 = 0x01;
/// In the fourth byte: we give whole answers.
const RECURSION_AVAILABLE: u8 = 0x80;
/// A label longer than this is a pointer, which a question has no use for.
const LONGEST_LABEL: u8 = 63;
/// The longest name.
const LONGEST_NAME: usize = 255;
/// Queries for whole zones: IXFR and AXFR.
const TRANSFERS: [u16; 2] = [251, 252];

/// Why a query is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum No {
    /// It cannot be read.
    Malformed = 1,
    /// We could not get an answer, or there is too much to do.
    Failed = 2,
    /// It is no query for a name.
    Unknown = 4,
    /// It asks for a whole zone.
    Refused = 5,
}

/// A query that can be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    bytes: Vec<u8>,
    /// Where its question ends.
    end: usize,
}

impl Query {
    /// Reads a query. What cannot even be answered is nothing at all.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let header = bytes.first_chunk::<HEADER>().ok_or(None)?;
        if header[2] & ANSWER != 0 {
            // Answering an answer could go on for ever.
            return Err(None);
        }
        let say = |no| Err(Some(answer(bytes, no, 0)));
        if header[2] & OPCODE != 0 {
            return say(No::Unknown);
        }
        if header[4..6] != [0, 1] {
            return say(No::Malformed);
        }
        let Some(end) = question_end(bytes) else { return say(No::Malformed) };
        let kind = u16::from_be_bytes([bytes[end - 4], bytes[end - 3]]);
        if TRANSFERS.contains(&kind) {
            return say(No::Refused);
        }
        Ok(Self { bytes: bytes.to_vec(), end })
    }

    /// The query under another number.
    pub(super) fn numbered(&self, number: [u8; 2]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&number);
        bytes
    }

    /// Whether something is the answer to this query under a number.
    pub(super) fn is_answered_by(&self, number: [u8; 2], answer: &[u8]) -> bool {
        let Some(header) = answer.first_chunk::<HEADER>() else { return false };
        let same_question = match header[4..6] {
            // Some servers leave the question out when they refuse.
            [0, 0] => true,
            _ => {
                answer.get(HEADER..self.end).is_some_and(|there| there.eq_ignore_ascii_case(self.question()))
            }
        };
        header[..2] == number && header[2] & ANSWER != 0 && same_question
    }

    /// An answer under the number that the asker gave.
    pub(super) fn for_asker(&self, mut answer: Vec<u8>) -> Vec<u8> {
        answer[..2].copy_from_slice(&self.bytes[..2]);
        answer
    }

    /// The answer that says no.
    pub(super) fn refused(&self, no: No) -> Vec<u8> {
        answer(&self.bytes[..self.end], no, 0)
    }

    /// The answer that sends the asker to TCP.
    pub(super) fn cut(&self) -> Vec<u8> {
        let mut bytes = answer(&self.bytes[..self.end], No::Failed, CUT);
        bytes[3] = RECURSION_AVAILABLE;
        bytes
    }

    fn question(&self) -> &[u8] {
        &self.bytes[HEADER..self.end]
    }
}

/// Header and, when there is one, question of an answer without records. `query` has a whole header.
fn answer(query: &[u8], no: No, flags: u8) -> Vec<u8> {
    let end = question_end(query);
    let mut bytes = query[..end.unwrap_or(HEADER)].to_vec();
    bytes[2] = ANSWER | (query[2] & (OPCODE | RECURSION_DESIRED)) | flags;
    bytes[3] = RECURSION_AVAILABLE | no as u8;
    bytes[4..HEADER].copy_from_slice(&[0, u8::from(end.is_some()), 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Where the first question of a message ends: behind its name, type and class.
fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = *bytes.get(at)?;
        at += 1 + usize::from(length);
        if length > LONGEST_LABEL || at - HEADER > LONGEST_NAME {
            return None;
        }
        if length == 0 {
            let end = at + 4;
            return (end <= bytes.len()).then_some(end);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query for the address of a name.
    pub(in super::super) fn mk_query(number: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend([RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let query = Query::read(&mk_query(7, "a.example", 1)).unwrap();
        let mut answer = query.numbered([9, 9]);
        assert!(!query.is_answered_by([9, 9], &answer), "a query");
        answer[2] |= ANSWER;
        assert!(query.is_answered_by([9, 9], &answer));
        assert!(!query.is_answered_by([9, 8], &answer), "another number");
        let mut other = mk_query(7, "b.example", 1);
        other[2] |= ANSWER;
        assert!(!query.is_answered_by([0, 7], &other), "another question");
        assert_eq!(query.for_asker(answer)[..2], [0, 7]);
    }

    #[test]
    fn what_is_not_passed_on_is_said() {
        let refused = |bytes: &[u8]| Query::read(bytes).unwrap_err().map(|answer| answer[3] & 0x0f);
        assert_eq!(refused(&mk_query(1, "a.example", 252)), Some(No::Refused as u8));
        let mut update = mk_query(1, "a.example", 1);
        update[2] = 0x28;
        assert_eq!(refused(&update), Some(No::Unknown as u8));
        let mut two = mk_query(1, "a.example", 1);
        two[5] = 2;
        assert_eq!(refused(&two), Some(No::Malformed as u8));
        let mut answer = mk_query(1, "a.example", 1);
        answer[2] |= ANSWER;
        assert_eq!(refused(&answer), None, "an answer is not answered");
        assert_eq!(refused(&[0; 11]), None);
    }

    #[test]
    fn an_answer_of_ours_has_the_question_and_nothing_else() {
        let mut bytes = mk_query(3, "a.example", 28);
        let question = bytes.len();
        bytes.extend([0xff; 20]);
        let query = Query::read(&bytes).unwrap();
        let no = query.refused(No::Failed);
        assert_eq!(no.len(), question);
        assert_eq!((no[..2].to_vec(), no[3] & 0x0f, no[2] & CUT), (vec![0, 3], 2, 0));
        let cut = query.cut();
        assert_eq!((cut[3] & 0x0f, cut[2] & CUT), (0, CUT));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600), answer in proptest::collection::vec(any::<u8>(), 0..600)) {
            match Query::read(&bytes) {
                Ok(query) => {
                    let _ = query.is_answered_by([0, 0], &answer);
                    prop_assert!(query.refused(No::Failed).len() <= bytes.len());
                }
                Err(Some(no)) => prop_assert!(no.len() <= bytes.len()),
                Err(None) => {}
            }
        }
    }
}
