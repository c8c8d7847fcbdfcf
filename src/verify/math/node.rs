//! The tree that an answer is read into: numbers, symbols, operations, and the shapes answers have (lists, tuples, sets, relations, matrices).
//!
//! It holds no rule about which trees mean the same.

use dashu_ratio::RBig;

/// A number exactly as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub value: RBig,
    /// Digits behind the decimal point as written; `None` for what was not written as a finite decimal.
    pub decimals: Option<u32>,
}

impl Number {
    pub(super) fn integer(value: i64) -> Self {
        Self { value: RBig::from(value), decimals: None }
    }
}

/// A constant that is no rational number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Constant {
    Pi,
    E,
    I,
    Infinity,
}

/// A function of one or more arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Func {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Acot,
    Asec,
    Acsc,
    Sinh,
    Cosh,
    Tanh,
    Coth,
    Asinh,
    Acosh,
    Atanh,
    Exp,
    Ln,
    /// One argument: the base is not written. Two: value, base.
    Log,
    Sqrt,
    /// Value, degree.
    Root,
    Abs,
    Floor,
    Ceil,
    Factorial,
    Binomial,
    Gcd,
    Lcm,
    Max,
    Min,
    /// Value, modulus: the remainder has the sign of the modulus.
    Mod,
    /// `a \pmod m` behind a congruence: value, modulus.
    Pmod,
    Re,
    Im,
    Conj,
    Arg,
    /// A function that a letter names (`f(x)`): the letter, then its arguments. Only equal applications have equal values.
    Apply,
}

/// A relation between two neighbours in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rel {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Approx,
    Equiv,
    In,
    NotIn,
    /// An arrow, `\sim`, `\perp`, `\parallel`, …: no meaning beyond being the same sign.
    Other(&'static str),
}

impl Rel {
    /// The relation read from right to left.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            same => same,
        }
    }

    pub(super) fn is_order(self) -> bool {
        matches!(self, Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }
}

/// An operation on sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SetOp {
    Union,
    Intersection,
    Difference,
}

/// What stands between the members of a bare list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Join {
    Comma,
    Semicolon,
    And,
    Or,
}

/// A named set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NamedSet {
    Empty,
    Reals,
    Rationals,
    Integers,
    Naturals,
    Complex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Num(Number),
    /// A variable, with its subscript and primes in the name.
    Sym(String),
    Const(Constant),
    Neg(Box<Node>),
    Add(Vec<Node>),
    Mul(Vec<Node>),
    Div(Box<Node>, Box<Node>),
    Pow(Box<Node>, Box<Node>),
    Call(Func, Vec<Node>),
    /// `±x` (false) and `∓x` (true).
    PlusMinus(bool, Box<Node>),
    Percent(Box<Node>),
    Degree(Box<Node>),
    /// A value and the unit as written, in lower case where it is a word.
    Unit(Box<Node>, String),
    /// `a : b : c`.
    Ratio(Vec<Node>),
    /// Digits and the base written below them.
    Based(String, u32),
    /// `a < b ≤ c`: one relation fewer than members.
    Chain(Vec<Node>, Vec<Rel>),
    /// A bare list.
    List(Join, Vec<Node>),
    /// Two or more members in brackets: a tuple, a vector, or an interval; whether the ends are closed (square).
    Group {
        open_closed: bool,
        close_closed: bool,
        items: Vec<Node>,
    },
    /// Members in braces.
    Set(Vec<Node>),
    /// `{ x | condition }`: what is collected, under which condition.
    Builder(Box<Node>, Box<Node>),
    SetOp(SetOp, Box<Node>, Box<Node>),
    Named(NamedSet),
    /// Rows of equal length.
    Matrix(Vec<Vec<Node>>),
    /// Words, in lower case, single spaces between them.
    Text(String),
}

impl Node {
    pub(super) fn int(value: i64) -> Self {
        Self::Num(Number::integer(value))
    }

    pub(super) fn rational(value: RBig) -> Self {
        Self::Num(Number { value, decimals: None })
    }

    /// The nodes directly below.
    pub(super) fn children(&self) -> Vec<&Node> {
        match self {
            Self::Num(_) | Self::Sym(_) | Self::Const(_) | Self::Based(..) | Self::Named(_) | Self::Text(_) => Vec::new(),
            Self::Neg(a) | Self::PlusMinus(_, a) | Self::Percent(a) | Self::Degree(a) | Self::Unit(a, _) => vec![a],
            Self::Div(a, b) | Self::Pow(a, b) | Self::Builder(a, b) | Self::SetOp(_, a, b) => vec![a, b],
            Self::Add(items)
            | Self::Mul(items)
            | Self::Call(_, items)
            | Self::Ratio(items)
            | Self::Chain(items, _)
            | Self::List(_, items)
            | Self::Group { items, .. }
            | Self::Set(items) => items.iter().collect(),
            Self::Matrix(rows) => rows.iter().flatten().collect(),
        }
    }

    /// The same node with each child replaced.
    pub(super) fn map(&self, f: &mut dyn FnMut(&Node) -> Node) -> Node {
        let mut boxed = |n: &Node| Box::new(f(n));
        match self {
            Self::Num(_) | Self::Sym(_) | Self::Const(_) | Self::Based(..) | Self::Named(_) | Self::Text(_) => self.clone(),
            Self::Neg(a) => Self::Neg(boxed(a)),
            Self::PlusMinus(minus, a) => Self::PlusMinus(*minus, boxed(a)),
            Self::Percent(a) => Self::Percent(boxed(a)),
            Self::Degree(a) => Self::Degree(boxed(a)),
            Self::Unit(a, unit) => Self::Unit(boxed(a), unit.clone()),
            Self::Div(a, b) => Self::Div(boxed(a), boxed(b)),
            Self::Pow(a, b) => Self::Pow(boxed(a), boxed(b)),
            Self::Builder(a, b) => Self::Builder(boxed(a), boxed(b)),
            Self::SetOp(op, a, b) => Self::SetOp(*op, boxed(a), boxed(b)),
            Self::Add(items) => Self::Add(items.iter().map(f).collect()),
            Self::Mul(items) => Self::Mul(items.iter().map(f).collect()),
            Self::Call(func, items) => Self::Call(*func, items.iter().map(f).collect()),
            Self::Ratio(items) => Self::Ratio(items.iter().map(f).collect()),
            Self::Chain(items, rels) => Self::Chain(items.iter().map(f).collect(), rels.clone()),
            Self::List(join, items) => Self::List(*join, items.iter().map(f).collect()),
            Self::Group { open_closed, close_closed, items } => {
                Self::Group { open_closed: *open_closed, close_closed: *close_closed, items: items.iter().map(f).collect() }
            }
            Self::Set(items) => Self::Set(items.iter().map(f).collect()),
            Self::Matrix(rows) => Self::Matrix(rows.iter().map(|row| row.iter().map(&mut *f).collect()).collect()),
        }
    }

    /// The longest way down, counted without recursion: `1/1/1/…` and `5!!!…` are deep without brackets.
    pub(super) fn depth(&self) -> usize {
        let mut deepest = 0;
        let mut open = vec![(self, 1)];
        while let Some((node, depth)) = open.pop() {
            deepest = deepest.max(depth);
            open.extend(node.children().into_iter().map(|child| (child, depth + 1)));
        }
        deepest
    }

    /// Nodes in the tree, counted without recursion.
    pub(super) fn size(&self) -> usize {
        let mut n = 0;
        let mut open = vec![self];
        while let Some(node) = open.pop() {
            n += 1;
            open.extend(node.children());
        }
        n
    }

    /// Whether `test` holds for this node or any below it.
    pub(super) fn any(&self, test: &dyn Fn(&Node) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// Whether it is a single quantity: nothing in it is a list, a set, a relation, a matrix or a word.
    pub(super) fn is_scalar(&self) -> bool {
        !self.any(&|n| {
            matches!(
                n,
                Self::Chain(..)
                    | Self::List(..)
                    | Self::Group { .. }
                    | Self::Set(_)
                    | Self::Builder(..)
                    | Self::SetOp(..)
                    | Self::Named(_)
                    | Self::Matrix(_)
                    | Self::Text(_)
                    | Self::Ratio(_)
                    | Self::Based(..)
            )
        })
    }

    /// The names of its variables, sorted, each once.
    pub(super) fn symbols(&self) -> Vec<String> {
        fn collect(node: &Node, out: &mut Vec<String>) {
            if let Node::Sym(name) = node {
                out.push(name.clone());
            }
            node.children().into_iter().for_each(|child| collect(child, out));
        }
        let mut out = Vec::new();
        collect(self, &mut out);
        out.sort();
        out.dedup();
        out
    }
}
