//! What LaTeX commands, words and signs mean, as tables.

use super::lex::{Bracket, Tok};
use super::node::{Constant, Func, Join, NamedSet, Rel, SetOp};

/// What a command does to the lexer.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Tok(Tok),
    /// Sets type only.
    Space,
    /// `\left`, `\big` and their like: the bracket that follows counts, an invisible one (`.`) does not.
    Sized,
    /// The braces that follow are kept, the command is not (`\boxed`, `\mathbf`).
    Unwrap,
    /// What is in the braces that follow stands there without them.
    Splice,
    Begin,
    End,
    DropArgument,
    /// `\mathbb`.
    Board,
}

/// Commands whose argument is words.
pub(super) const TEXT: [&str; 18] = [
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "texttt",
    "textnormal",
    "textup",
    "mbox",
    "hbox",
    "mathrm",
    "mathit",
    "mathsf",
    "mathtt",
    "operatorname",
    "emph",
    "textsl",
    "textmd",
];

/// Signs, longest first where one begins another.
pub(super) const SIGNS: &[(&str, Tok)] = &[
    ("**", Tok::Caret),
    ("<=", Tok::Rel(Rel::Le)),
    (">=", Tok::Rel(Rel::Ge)),
    ("!=", Tok::Rel(Rel::Ne)),
    ("==", Tok::Rel(Rel::Eq)),
    ("=>", Tok::Rel(Rel::Other("=>"))),
    ("->", Tok::Rel(Rel::Other("->"))),
    ("<<", Tok::Rel(Rel::Other("<<"))),
    (">>", Tok::Rel(Rel::Other(">>"))),
    ("+-", Tok::PlusMinus(false)),
    ("=", Tok::Rel(Rel::Eq)),
    ("<", Tok::Rel(Rel::Lt)),
    (">", Tok::Rel(Rel::Gt)),
    ("≤", Tok::Rel(Rel::Le)),
    ("≥", Tok::Rel(Rel::Ge)),
    ("⩽", Tok::Rel(Rel::Le)),
    ("⩾", Tok::Rel(Rel::Ge)),
    ("≠", Tok::Rel(Rel::Ne)),
    ("≈", Tok::Rel(Rel::Approx)),
    ("≃", Tok::Rel(Rel::Approx)),
    ("≡", Tok::Rel(Rel::Equiv)),
    ("∈", Tok::Rel(Rel::In)),
    ("∉", Tok::Rel(Rel::NotIn)),
    ("→", Tok::Rel(Rel::Other("->"))),
    ("⇒", Tok::Rel(Rel::Other("=>"))),
    ("∥", Tok::Rel(Rel::Other("parallel"))),
    ("⊥", Tok::Rel(Rel::Other("perp"))),
    ("∼", Tok::Rel(Rel::Other("sim"))),
    ("+", Tok::Plus),
    ("-", Tok::Minus),
    ("−", Tok::Minus),
    ("–", Tok::Minus),
    ("—", Tok::Minus),
    ("±", Tok::PlusMinus(false)),
    ("∓", Tok::PlusMinus(true)),
    ("*", Tok::Times),
    ("×", Tok::Times),
    ("·", Tok::Times),
    ("⋅", Tok::Times),
    ("∙", Tok::Times),
    ("•", Tok::Times),
    ("/", Tok::Divide),
    ("÷", Tok::Divide),
    ("⁄", Tok::Divide),
    ("∕", Tok::Divide),
    ("^", Tok::Caret),
    ("_", Tok::Under),
    ("!", Tok::Bang),
    ("%", Tok::Percent),
    ("°", Tok::Degree),
    ("º", Tok::Degree),
    ("∘", Tok::Degree),
    ("'", Tok::Prime),
    ("’", Tok::Prime),
    ("′", Tok::Prime),
    ("(", Tok::Open(Bracket::Round)),
    (")", Tok::Close(Bracket::Round)),
    ("[", Tok::Open(Bracket::Square)),
    ("]", Tok::Close(Bracket::Square)),
    ("{", Tok::Open(Bracket::Brace)),
    ("}", Tok::Close(Bracket::Brace)),
    ("⟨", Tok::Open(Bracket::Angle)),
    ("⟩", Tok::Close(Bracket::Angle)),
    ("〈", Tok::Open(Bracket::Angle)),
    ("〉", Tok::Close(Bracket::Angle)),
    ("⌊", Tok::Open(Bracket::Floor)),
    ("⌋", Tok::Close(Bracket::Floor)),
    ("⌈", Tok::Open(Bracket::Ceil)),
    ("⌉", Tok::Close(Bracket::Ceil)),
    ("|", Tok::Bar),
    ("∣", Tok::Bar),
    (",", Tok::Join(Join::Comma)),
    ("、", Tok::Join(Join::Comma)),
    ("،", Tok::Join(Join::Comma)),
    (";", Tok::Join(Join::Semicolon)),
    (":", Tok::Colon),
    ("∶", Tok::Colon),
    ("&", Tok::Amp),
    ("√", Tok::Sqrt),
    ("∛", Tok::Func(Func::Root)),
    ("π", Tok::Const(Constant::Pi)),
    ("∞", Tok::Const(Constant::Infinity)),
    ("∅", Tok::Named(NamedSet::Empty)),
    ("ℝ", Tok::Named(NamedSet::Reals)),
    ("ℤ", Tok::Named(NamedSet::Integers)),
    ("ℚ", Tok::Named(NamedSet::Rationals)),
    ("ℕ", Tok::Named(NamedSet::Naturals)),
    ("ℂ", Tok::Named(NamedSet::Complex)),
    ("∪", Tok::SetOp(SetOp::Union)),
    ("⋃", Tok::SetOp(SetOp::Union)),
    ("∩", Tok::SetOp(SetOp::Intersection)),
    ("∖", Tok::SetOp(SetOp::Difference)),
    ("∧", Tok::Join(Join::And)),
    ("∨", Tok::Join(Join::Or)),
    ("…", Tok::Dots),
    ("⋯", Tok::Dots),
    ("¢", Tok::Currency("cent")),
    ("€", Tok::Currency("euro")),
    ("£", Tok::Currency("pound-sterling")),
    ("¥", Tok::Currency("yuan")),
    ("￥", Tok::Currency("yuan")),
    ("₹", Tok::Currency("rupee")),
    ("∠", Tok::Rel(Rel::Other("angle"))),
    ("△", Tok::Rel(Rel::Other("triangle"))),
];

/// What the LaTeX command `name` (without its backslash) means; `None` if it is not known.
pub(super) fn command(name: &str) -> Option<Meaning> {
    use Meaning::{Begin, Board, DropArgument, End, Sized, Space, Unwrap};
    Some(match name {
        "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr" | "biggl" | "biggr" | "Biggl" | "Biggr"
        | "mleft" | "mright" | "middle" => Sized,
        "displaystyle" | "textstyle" | "scriptstyle" | "quad" | "qquad" | "enspace" | "thinspace" | "limits" | "nolimits" | "rm" | "bf"
        | "it" | "sf" | "tt" | "boldmath" | "ensuremath" | "strut" | "hfill" | "newline" | "par" | "noindent" | "centering"
        | "negthinspace" | "nobreak" | "relax" | "allowbreak" | "tiny" | "small" | "large" | "Large" | "huge" | "normalsize"
        | "therefore" | "because" | "square" | "blacksquare" | "Box" | "qed" | "nonumber" | "notag" => Space,
        "hspace" | "vspace" | "phantom" | "hphantom" | "vphantom" | "label" | "tag" | "color" | "textcolor" | "hskip" | "kern" => {
            DropArgument
        }
        "boxed" | "fbox" | "mathbf" | "boldsymbol" | "bm" | "mathcal" | "mathscr" | "mathfrak" | "underline" | "overbrace"
        | "underbrace" | "vec" | "overrightarrow" | "hat" | "widehat" | "tilde" | "mathstrut" | "pmb" | "math" => Unwrap,
        "mathopen" | "mathclose" | "mathbin" | "mathrel" | "mathord" | "mathpunct" | "mathinner" | "mathop" => Meaning::Splice,
        "mathbb" | "Bbb" => Board,
        "begin" => Begin,
        "end" => End,
        _ => Meaning::Tok(command_token(name)?),
    })
}

fn command_token(name: &str) -> Option<Tok> {
    if let Some(func) = function(name) {
        return Some(Tok::Func(func));
    }
    if let Some(letter) = greek(name) {
        return Some(Tok::Sym(letter.to_owned()));
    }
    Some(match name {
        "pi" => Tok::Const(Constant::Pi),
        "infty" | "infin" => Tok::Const(Constant::Infinity),
        "exponentialE" => Tok::Const(Constant::E),
        "imaginaryI" | "imath" | "imaginaryJ" => Tok::Const(Constant::I),
        "frac" | "dfrac" | "tfrac" | "cfrac" | "sfrac" | "nicefrac" | "fraction" => Tok::Frac,
        "sqrt" => Tok::Sqrt,
        "binom" | "dbinom" | "tbinom" => Tok::Binom,
        "over" => Tok::Over,
        "choose" => Tok::Choose,
        "overline" | "bar" => Tok::Overline,
        "times" | "cdot" | "ast" | "star" | "bullet" | "cdotp" => Tok::Times,
        "div" => Tok::Divide,
        "bmod" | "mod" => Tok::Mod,
        "pmod" => Tok::Pmod,
        "pm" => Tok::PlusMinus(false),
        "mp" => Tok::PlusMinus(true),
        "circ" | "degree" | "textdegree" | "deg" => Tok::Degree,
        "prime" => Tok::Prime,
        "percent" => Tok::Percent,
        "dots" | "ldots" | "cdots" | "dotsc" | "dotsb" | "vdots" | "ddots" => Tok::Dots,
        "eq" => Tok::Rel(Rel::Eq),
        "ne" | "neq" => Tok::Rel(Rel::Ne),
        "lt" => Tok::Rel(Rel::Lt),
        "gt" => Tok::Rel(Rel::Gt),
        "le" | "leq" | "leqslant" | "leqq" => Tok::Rel(Rel::Le),
        "ge" | "geq" | "geqslant" | "geqq" => Tok::Rel(Rel::Ge),
        "approx" | "simeq" | "approxeq" | "thickapprox" | "doteq" => Tok::Rel(Rel::Approx),
        "equiv" | "cong" => Tok::Rel(Rel::Equiv),
        "in" => Tok::Rel(Rel::In),
        "notin" => Tok::Rel(Rel::NotIn),
        "to" | "rightarrow" | "longrightarrow" | "mapsto" => Tok::Rel(Rel::Other("->")),
        "Rightarrow" | "implies" | "Longrightarrow" => Tok::Rel(Rel::Other("=>")),
        "iff" | "Leftrightarrow" => Tok::Rel(Rel::Other("<=>")),
        "sim" => Tok::Rel(Rel::Other("sim")),
        "perp" => Tok::Rel(Rel::Other("perp")),
        "parallel" => Tok::Rel(Rel::Other("parallel")),
        "propto" => Tok::Rel(Rel::Other("propto")),
        "subset" | "subseteq" => Tok::Rel(Rel::Other("subset")),
        "cup" | "bigcup" => Tok::SetOp(SetOp::Union),
        "cap" | "bigcap" => Tok::SetOp(SetOp::Intersection),
        "setminus" | "backslash" | "smallsetminus" => Tok::SetOp(SetOp::Difference),
        "emptyset" | "varnothing" => Tok::Named(NamedSet::Empty),
        "reals" | "R" | "Reals" => Tok::Named(NamedSet::Reals),
        "land" | "wedge" => Tok::Join(Join::And),
        "lor" | "vee" => Tok::Join(Join::Or),
        "colon" | "ratio" => Tok::Colon,
        "mid" | "vert" | "Vert" => Tok::Bar,
        "lvert" | "lVert" => Tok::Open(Bracket::Bar),
        "rvert" | "rVert" => Tok::Close(Bracket::Bar),
        "lbrace" => Tok::Open(Bracket::Curly),
        "rbrace" => Tok::Close(Bracket::Curly),
        "lbrack" => Tok::Open(Bracket::Square),
        "rbrack" => Tok::Close(Bracket::Square),
        "lparen" | "lgroup" => Tok::Open(Bracket::Round),
        "rparen" | "rgroup" => Tok::Close(Bracket::Round),
        "langle" => Tok::Open(Bracket::Angle),
        "rangle" => Tok::Close(Bracket::Angle),
        "lfloor" | "llcorner" => Tok::Open(Bracket::Floor),
        "rfloor" | "lrcorner" => Tok::Close(Bracket::Floor),
        "lceil" | "ulcorner" => Tok::Open(Bracket::Ceil),
        "rceil" | "urcorner" => Tok::Close(Bracket::Ceil),
        "angle" | "measuredangle" => Tok::Rel(Rel::Other("angle")),
        "triangle" | "bigtriangleup" => Tok::Rel(Rel::Other("triangle")),
        "cr" => Tok::Row,
        "ell" => Tok::Sym("l".to_owned()),
        "dollar" | "textdollar" => Tok::Currency("dollar"),
        "euro" => Tok::Currency("euro"),
        "pounds" => Tok::Currency("pound-sterling"),
        "checkmark" => Tok::Word("yes".to_owned()),
        _ => return None,
    })
}

/// Names of functions, with a backslash or without.
fn function(name: &str) -> Option<Func> {
    Some(match name {
        "sin" => Func::Sin,
        "cos" => Func::Cos,
        "tan" | "tg" => Func::Tan,
        "cot" | "ctg" => Func::Cot,
        "sec" => Func::Sec,
        "csc" | "cosec" => Func::Csc,
        "arcsin" | "asin" => Func::Asin,
        "arccos" | "acos" => Func::Acos,
        "arctan" | "atan" | "arctg" => Func::Atan,
        "arccot" | "acot" => Func::Acot,
        "arcsec" => Func::Asec,
        "arccsc" => Func::Acsc,
        "sinh" => Func::Sinh,
        "cosh" => Func::Cosh,
        "tanh" => Func::Tanh,
        "coth" => Func::Coth,
        "arcsinh" | "arsinh" | "asinh" => Func::Asinh,
        "arccosh" | "arcosh" | "acosh" => Func::Acosh,
        "arctanh" | "artanh" | "atanh" => Func::Atanh,
        "exp" => Func::Exp,
        "ln" => Func::Ln,
        "log" | "lg" => Func::Log,
        "abs" => Func::Abs,
        "floor" => Func::Floor,
        "ceil" | "ceiling" => Func::Ceil,
        "cbrt" => Func::Root,
        "gcd" => Func::Gcd,
        "lcm" => Func::Lcm,
        "max" => Func::Max,
        "min" => Func::Min,
        "Re" => Func::Re,
        "Im" => Func::Im,
        "arg" | "Arg" => Func::Arg,
        _ => return None,
    })
}

/// Names of Greek letters that are variables; forms of one letter have one name.
fn greek(name: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 36] = [
        ("alpha", "alpha"),
        ("beta", "beta"),
        ("gamma", "gamma"),
        ("delta", "delta"),
        ("epsilon", "epsilon"),
        ("varepsilon", "epsilon"),
        ("zeta", "zeta"),
        ("eta", "eta"),
        ("theta", "theta"),
        ("vartheta", "theta"),
        ("iota", "iota"),
        ("kappa", "kappa"),
        ("lambda", "lambda"),
        ("mu", "mu"),
        ("nu", "nu"),
        ("xi", "xi"),
        ("rho", "rho"),
        ("varrho", "rho"),
        ("sigma", "sigma"),
        ("varsigma", "sigma"),
        ("tau", "tau"),
        ("upsilon", "upsilon"),
        ("phi", "phi"),
        ("varphi", "phi"),
        ("chi", "chi"),
        ("psi", "psi"),
        ("omega", "omega"),
        ("Gamma", "Gamma"),
        ("Delta", "Delta"),
        ("Theta", "Theta"),
        ("Lambda", "Lambda"),
        ("Xi", "Xi"),
        ("Sigma", "Sigma"),
        ("Phi", "Phi"),
        ("Psi", "Psi"),
        ("Omega", "Omega"),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, letter)| *letter)
}

/// What a run of letters without a backslash means, `None` where it is a word or variables. `text`: it stands inside of a text command.
pub(super) fn word(run: &str, text: bool) -> Option<Meaning> {
    let tok = match run {
        "and" | "And" | "AND" | "и" | "y" if run != "y" || text => Tok::Join(Join::And),
        "or" | "Or" | "OR" | "或" | "或者" | "oder" | "ou" => Tok::Join(Join::Or),
        "和" | "与" | "及" | "und" => Tok::Join(Join::And),
        "pi" => Tok::Const(Constant::Pi),
        "π" => Tok::Const(Constant::Pi),
        "infinity" | "inf" | "oo" | "infty" | "Infinity" => Tok::Const(Constant::Infinity),
        "sqrt" => Tok::Sqrt,
        "frac" if !text => Tok::Frac,
        "percent" | "pct" | "percentage" | "Percent" => Tok::Percent,
        "degrees" | "degree" | "deg" | "度" => Tok::Degree,
        "in" if !text => return None,
        "mod" => Tok::Mod,
        "to" => return None,
        "choose" if !text => Tok::Choose,
        _ => {
            let mut chars = run.chars();
            if let (Some(c), None) = (chars.next(), chars.next())
                && let Some(letter) = greek_char(c)
            {
                return Some(Meaning::Tok(Tok::Sym(letter.to_owned())));
            }
            if let Some(letter) = greek(run).filter(|_| !text && run != "eta" && run != "Xi" || run.len() > 3) {
                return Some(Meaning::Tok(Tok::Sym(letter.to_owned())));
            }
            Tok::Func(function(run).filter(|_| run != "arg" && run != "Re" && run != "Im" && !(text && matches!(run, "max" | "min")))?)
        }
    };
    Some(Meaning::Tok(tok))
}

fn greek_char(c: char) -> Option<&'static str> {
    Some(match c {
        'α' => "alpha",
        'β' => "beta",
        'γ' => "gamma",
        'δ' => "delta",
        'ε' | 'ϵ' => "epsilon",
        'ζ' => "zeta",
        'η' => "eta",
        'θ' | 'ϑ' => "theta",
        'κ' => "kappa",
        'λ' => "lambda",
        'μ' | 'µ' => "mu",
        'ν' => "nu",
        'ξ' => "xi",
        'ρ' => "rho",
        'σ' | 'ς' => "sigma",
        'τ' => "tau",
        'φ' | 'ϕ' => "phi",
        'χ' => "chi",
        'ψ' => "psi",
        'ω' => "omega",
        'Γ' => "Gamma",
        'Δ' => "Delta",
        'Θ' => "Theta",
        'Λ' => "Lambda",
        'Σ' => "Sigma",
        'Φ' => "Phi",
        'Ψ' => "Psi",
        'Ω' => "Omega",
        _ => return None,
    })
}
