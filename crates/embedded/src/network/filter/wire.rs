//! Requests to nf_tables: tables, chains, sets, elements and rules as messages.

use std::net::Ipv4Addr;

use super::expression::{DATA_VALUE, Rule};
use crate::network::netlink::{Attributes, Request, WithAttributes, attributes, find};

const SUBSYSTEM: u16 = 10;
/// Tables that see IPv4 and IPv6.
const FAMILY_INET: u8 = 1;
const FAMILY_ANY: u8 = 0;
const CREATE: u16 = 0x400;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const GET_SET: u16 = 10;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DEL_ELEMENT: u16 = 14;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const LIST_ELEM: u16 = 1;
const KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const MARK: u16 = 6;
const KEY_END: u16 = 10;
/// The element is the end of a range, and not in it.
const INTERVAL_END: u32 = 1;

fn message(kind: u16, flags: u16, family: u8) -> Request {
    Request::new(SUBSYSTEM << 8 | kind, flags, &[family, 0, 0, 0])
}

/// The two marks around requests that are carried out all or none.
pub(super) fn batch() -> [Request; 2] {
    // The subsystem, in network byte order.
    let mark = |kind| Request::new(kind, 0, &[FAMILY_ANY, 0, 0, u8::try_from(SUBSYSTEM).unwrap_or(0)]);
    [mark(BATCH_BEGIN), mark(BATCH_END)]
}

/// Where a chain is called from: hook, priority, and what kind of chain it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// What kind of set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Bytes of each field of its key; each takes a multiple of four.
    pub(super) fields: &'static [u32],
    /// Whether its elements are ranges.
    pub(super) ranges: bool,
    /// Whether rules add to it.
    pub(super) dynamic: bool,
}

pub(super) fn new_table(table: &str) -> Request {
    message(NEW_TABLE, CREATE, FAMILY_INET).text(1, table)
}

pub(super) fn delete_table(table: &str) -> Request {
    message(DEL_TABLE, 0, FAMILY_INET).text(1, table)
}

/// The type of the message that tells of a removed table.
pub(super) fn table_removed() -> u16 {
    SUBSYSTEM << 8 | DEL_TABLE
}

/// Removes all tables of all.
#[cfg(test)]
pub(super) fn delete_everything() -> Request {
    message(DEL_TABLE, 0, FAMILY_ANY)
}

pub(super) fn get_tables() -> Request {
    message(GET_TABLE, 0, FAMILY_INET)
}

/// The name of a table, from an answer.
pub(super) fn table_name(body: &[u8]) -> Option<String> {
    text(body, 1)
}

pub(super) fn new_chain(table: &str, chain: &str, hook: Option<Hook>) -> Request {
    let request = message(NEW_CHAIN, CREATE, FAMILY_INET).text(1, table).text(3, chain);
    let Some(hook) = hook else { return request };
    let place = Attributes::new().number_be(1, hook.number).number_be(2, hook.priority.cast_unsigned());
    request.nested(4, &place).text(7, hook.kind)
}

pub(super) fn get_chains() -> Request {
    message(GET_CHAIN, 0, FAMILY_ANY)
}

/// The name of a chain, from an answer.
pub(super) fn chain_name(body: &[u8]) -> Option<String> {
    text(body, 3)
}

/// A chain that the kernel calls by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: u32,
    pub(super) drops: bool,
}

/// A base chain, from an answer; `None` when it is none.
pub(super) fn base_chain(body: &[u8]) -> Option<BaseChain> {
    let rest = body.get(4..)?;
    let place = find(rest, 4)?;
    let number = |value: &[u8]| Some(u32::from_be_bytes(value.try_into().ok()?));
    Some(BaseChain {
        family: *body.first()?,
        table: text(body, 1)?,
        name: text(body, 3)?,
        hook: number(find(place, 1)?)?,
        drops: find(rest, 5).and_then(number) == Some(0),
    })
}

pub(super) fn flush_chain(table: &str, chain: &str) -> Request {
    message(DEL_RULE, 0, FAMILY_INET).text(1, table).text(2, chain)
}

pub(super) fn new_rule(table: &str, chain: &str, rule: &Rule) -> Request {
    const APPEND: u16 = 0x800;
    message(NEW_RULE, CREATE | APPEND, FAMILY_INET)
        .text(1, table)
        .text(2, chain)
        .nested(4, &rule.expressions())
}

/// A set; `id` tells it from others of the same batch.
pub(super) fn new_set(table: &str, set: &Set, id: u32) -> Request {
    const INTERVAL: u32 = 0x4;
    const EVAL: u32 = 0x20;
    const CONCAT: u32 = 0x80;
    // Only ranges need to know where one field of a key ends.
    let concatenated = set.ranges && set.fields.len() > 1;
    let mut flags = 0;
    for (wanted, flag) in [(set.ranges, INTERVAL), (set.dynamic, EVAL), (concatenated, CONCAT)] {
        flags |= if wanted { flag } else { 0 };
    }
    let length: u32 = set.fields.iter().map(|field| field.next_multiple_of(4)).sum();
    let request = message(NEW_SET, CREATE, FAMILY_INET)
        .text(1, table)
        .text(2, set.name)
        .number_be(3, flags)
        // The type is for those who print it; the kernel wants it to be there.
        .number_be(4, 0)
        .number_be(5, length)
        .number_be(10, id);
    if !concatenated {
        return request;
    }
    let fields = set.fields.iter().fold(Attributes::new(), |list, field| {
        list.nested(LIST_ELEM, &Attributes::new().number_be(1, *field))
    });
    request.nested(9, &Attributes::new().nested(2, &fields))
}

pub(super) fn get_set(table: &str, set: &str) -> Request {
    message(GET_SET, 0, FAMILY_INET).text(1, table).text(2, set)
}

/// Elements of a set, to be added or taken away.
#[derive(Debug, Clone)]
pub(super) struct Elements {
    set: &'static str,
    list: Attributes,
}

impl Elements {
    pub(super) fn of(set: &'static str) -> Self {
        Self { set, list: Attributes::new() }
    }

    /// One key.
    pub(super) fn key(mut self, key: &[u8]) -> Self {
        self.list = self.list.nested(LIST_ELEM, &Attributes::new().nested(KEY, &value(key)));
        self
    }

    /// One key, with something written on it.
    pub(super) fn marked_key(mut self, key: &[u8], mark: &[u8]) -> Self {
        let one = Attributes::new().nested(KEY, &value(key)).attribute(MARK, mark);
        self.list = self.list.nested(LIST_ELEM, &one);
        self
    }

    /// All keys from one to another, field by field, in a set of concatenated ranges.
    pub(super) fn box_of(mut self, first: &[u8], last: &[u8]) -> Self {
        let one = Attributes::new().nested(KEY, &value(first)).nested(KEY_END, &value(last));
        self.list = self.list.nested(LIST_ELEM, &one);
        self
    }

    /// All addresses from one to another, in a set of plain ranges.
    pub(super) fn range(mut self, first: Ipv4Addr, last: Ipv4Addr) -> Self {
        let start = Attributes::new().nested(KEY, &value(&first.octets()));
        self.list = self.list.nested(LIST_ELEM, &start);
        // A range that reaches the last address of all has no end.
        if let Some(behind) = last.to_bits().checked_add(1) {
            let end = Attributes::new()
                .nested(KEY, &value(&behind.to_be_bytes()))
                .number_be(ELEMENT_FLAGS, INTERVAL_END);
            self.list = self.list.nested(LIST_ELEM, &end);
        }
        self
    }

    pub(super) fn add(&self, table: &str) -> Request {
        self.request(NEW_ELEMENT, CREATE, table)
    }

    pub(super) fn remove(&self, table: &str) -> Request {
        self.request(DEL_ELEMENT, 0, table)
    }

    fn request(&self, kind: u16, flags: u16, table: &str) -> Request {
        message(kind, flags, FAMILY_INET).text(1, table).text(2, self.set).nested(3, &self.list)
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().attribute(DATA_VALUE, bytes)
}

/// Takes all elements from a set.
pub(super) fn flush_set(table: &str, set: &str) -> Request {
    message(DEL_ELEMENT, 0, FAMILY_INET).text(1, table).text(2, set)
}

pub(super) fn get_elements(table: &str, set: &str) -> Request {
    message(GET_ELEMENT, 0, FAMILY_INET).text(1, table).text(2, set)
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// The last key of a range.
    pub(super) end: Option<Vec<u8>>,
    /// What is written on it.
    pub(super) mark: Option<Vec<u8>>,
}

/// The elements of an answer.
pub(super) fn elements(body: &[u8]) -> Vec<Element> {
    let Some(list) = body.get(4..).and_then(|rest| find(rest, 3)) else { return Vec::new() };
    attributes(list)
        .filter_map(|(_, element)| {
            let bytes =
                |kind| find(element, kind).and_then(|data| find(data, DATA_VALUE)).map(<[u8]>::to_vec);
            Some(Element {
                key: bytes(KEY)?,
                end: bytes(KEY_END),
                mark: find(element, MARK).map(<[u8]>::to_vec),
            })
        })
        .collect()
}

fn text(body: &[u8], kind: u16) -> Option<String> {
    let value = find(body.get(4..)?, kind)?;
    Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
}
