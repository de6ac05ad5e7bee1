//! What rules are made of: loads into registers, comparisons, verdicts. Numbers are those of
//! `linux/netfilter/nf_tables.h`.

use crate::network::netlink::{Attributes, WithAttributes};

/// The register that holds a rule's verdict.
const VERDICT_REGISTER: u32 = 0;
/// The first of sixteen registers of four bytes each; longer values and concatenations take several.
const FIRST_REGISTER: u32 = 8;

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const LIST_ELEM: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// Bytes of an interface's name in the kernel.
pub(super) const IFNAME: usize = 16;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// The name of the interface a packet came in by.
    InInterface,
    /// The name of the interface it leaves by.
    OutInterface,
    /// Internet protocol version, as `AF_INET` and `AF_INET6`.
    Family,
    /// The protocol above it.
    Protocol,
    /// Version and header length of an IPv4 packet, in one byte.
    HeaderLength,
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
    /// The port it goes to.
    Port,
    /// What the destination is to this machine, as the types of routes.
    DestinationKind,
    /// What connection tracking thinks of it.
    State,
}

impl Field {
    /// How many registers of four bytes its value takes.
    fn registers(self) -> u32 {
        if matches!(self, Self::InInterface | Self::OutInterface) { 4 } else { 1 }
    }

    fn load(self, register: u32) -> Expression {
        let meta = |key| {
            let data = Attributes::new().number_be(1, register).number_be(2, key);
            Expression { name: "meta", data }
        };
        // Base: 1 the network header, 2 the transport header.
        let payload = |base, offset, length| Expression {
            name: "payload",
            data: Attributes::new()
                .number_be(1, register)
                .number_be(2, base)
                .number_be(3, offset)
                .number_be(4, length),
        };
        match self {
            Self::InInterface => meta(6),
            Self::OutInterface => meta(7),
            Self::Family => meta(15),
            Self::Protocol => meta(16),
            Self::HeaderLength => payload(1, 0, 1),
            Self::Source => payload(1, 12, 4),
            Self::Destination => payload(1, 16, 4),
            Self::Port => payload(2, 2, 2),
            // Result 3: the kind of address; flag 2: of the destination.
            Self::DestinationKind => Expression {
                name: "fib",
                data: Attributes::new().number_be(1, register).number_be(2, 3).number_be(3, 2),
            },
            Self::State => {
                Expression { name: "ct", data: Attributes::new().number_be(1, register).number_be(2, 0) }
            }
        }
    }
}

/// One expression of a rule.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    name: &'static str,
    data: Attributes,
}

/// One rule: conditions, then what happens when all hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    expressions: Vec<Expression>,
}

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &'static str, data: Attributes) -> Self {
        self.expressions.push(Expression { name, data });
        self
    }

    fn compare(mut self, field: Field, operator: u32, value: &[u8]) -> Self {
        self.expressions.push(field.load(FIRST_REGISTER));
        let data = Attributes::new().number_be(1, FIRST_REGISTER).number_be(2, operator);
        self.with("cmp", data.nested(3, &Attributes::new().attribute(DATA_VALUE, value)))
    }

    /// The field is this. Of an interface's name a beginning is enough.
    pub(super) fn equals(self, field: Field, value: &[u8]) -> Self {
        self.compare(field, 0, value)
    }

    /// The field is not this.
    pub(super) fn differs(self, field: Field, value: &[u8]) -> Self {
        self.compare(field, 1, value)
    }

    /// The bits of a field under a mask are these, or are not.
    pub(super) fn masked(mut self, field: Field, mask: [u8; 4], value: [u8; 4], equal: bool) -> Self {
        self.expressions.push(field.load(FIRST_REGISTER));
        let bitwise = Attributes::new()
            .number_be(1, FIRST_REGISTER)
            .number_be(2, FIRST_REGISTER)
            .number_be(3, 4)
            .nested(4, &Attributes::new().attribute(DATA_VALUE, &mask))
            .nested(5, &Attributes::new().attribute(DATA_VALUE, &[0; 4]));
        let compare = Attributes::new().number_be(1, FIRST_REGISTER).number_be(2, u32::from(!equal));
        self.with("bitwise", bitwise)
            .with("cmp", compare.nested(3, &Attributes::new().attribute(DATA_VALUE, &value)))
    }

    /// The fields together are in a set, or are not.
    pub(super) fn in_set(mut self, fields: &[Field], set: &str, contained: bool) -> Self {
        let mut register = FIRST_REGISTER;
        for field in fields {
            self.expressions.push(field.load(register));
            register += field.registers();
        }
        let lookup = Attributes::new()
            .text(1, set)
            .number_be(2, FIRST_REGISTER)
            // Flag 1: the other way round.
            .number_be(5, u32::from(!contained));
        self.with("lookup", lookup)
    }

    /// The source has more connections than this, counted in a set of ours.
    pub(super) fn more_connections(mut self, set: &str, most: u32) -> Self {
        self.expressions.push(Field::Source.load(FIRST_REGISTER));
        // Flag 1: true when there are more.
        let limit = Attributes::new().number_be(1, most).number_be(2, 1);
        let limit = Attributes::new().text(EXPR_NAME, "connlimit").nested(EXPR_DATA, &limit);
        let data =
            Attributes::new().text(1, set).number_be(3, 0).number_be(4, FIRST_REGISTER).nested(7, &limit);
        self.with("dynset", data)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let mut verdict = Attributes::new().number_be(VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            verdict = verdict.text(VERDICT_CHAIN, chain);
        }
        let data = Attributes::new().nested(DATA_VERDICT, &verdict);
        self.with("immediate", Attributes::new().number_be(1, VERDICT_REGISTER).nested(2, &data))
    }

    /// Then it passes this chain's hook.
    pub(super) fn accept(self) -> Self {
        self.verdict(1, None)
    }

    /// Then it is gone, and nobody is told.
    pub(super) fn drop(self) -> Self {
        self.verdict(0, None)
    }

    /// Then another chain says what happens.
    pub(super) fn go_to(self, chain: &str) -> Self {
        self.verdict(-4, Some(chain))
    }

    /// Then the connection is refused.
    pub(super) fn reset(self) -> Self {
        self.with("reject", Attributes::new().number_be(1, 1).attribute(2, &[0]))
    }

    /// Then the sender hears that it is forbidden.
    pub(super) fn forbid(self) -> Self {
        // Type 2: an ICMP message of the packet's own version; code 3: administratively prohibited.
        self.with("reject", Attributes::new().number_be(1, 2).attribute(2, &[3]))
    }

    /// Then it goes on under the address of the interface it leaves by.
    pub(super) fn masquerade(self) -> Self {
        self.with("masq", Attributes::new())
    }

    /// The rule as the kernel reads it.
    pub(super) fn expressions(&self) -> Attributes {
        self.expressions.iter().fold(Attributes::new(), |list, expression| {
            let one = Attributes::new().text(EXPR_NAME, expression.name).nested(EXPR_DATA, &expression.data);
            list.nested(LIST_ELEM, &one)
        })
    }
}
