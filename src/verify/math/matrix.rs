//! Matrices: sums, products, multiples; compared entry by entry.

use super::node::Node;

/// Largest side of a matrix that takes part in a product.
const MAX_SIDE: usize = 12;
/// Most nodes of a product, whose entries are kept as expressions.
const MAX_NODES: usize = 20_000;

pub(super) type Rows = Vec<Vec<Node>>;

/// The entries of an expression whose value is a matrix; `None` for anything else, and where sides do not fit.
pub(super) fn rows(node: &Node) -> Option<Rows> {
    match node {
        Node::Matrix(rows) => Some(rows.clone()),
        Node::Neg(a) => Some(each(&rows(a)?, &|x| Node::Neg(Box::new(x.clone())))),
        Node::Div(a, b) if b.is_scalar() => Some(each(&rows(a)?, &|x| Node::Div(Box::new(x.clone()), b.clone()))),
        Node::Add(items) => {
            let mut items = items.iter();
            let mut sum = rows(items.next()?)?;
            for item in items {
                let item = rows(item)?;
                if item.len() != sum.len() || item[0].len() != sum[0].len() {
                    return None;
                }
                sum = sum
                    .iter()
                    .zip(&item)
                    .map(|(a, b)| a.iter().zip(b).map(|(x, y)| Node::Add(vec![x.clone(), y.clone()])).collect())
                    .collect();
            }
            Some(sum)
        }
        Node::Mul(items) => {
            let mut product: Option<Rows> = None;
            let mut scalars: Vec<Node> = Vec::new();
            for item in items {
                match rows(item) {
                    Some(right) => {
                        product = Some(match product {
                            None => right,
                            Some(left) => times(&left, &right)?,
                        });
                    }
                    None if item.is_scalar() => scalars.push(item.clone()),
                    None => return None,
                }
            }
            let product = product?;
            Some(if scalars.is_empty() {
                product
            } else {
                each(&product, &|x| {
                    let mut factors = scalars.clone();
                    factors.push(x.clone());
                    Node::Mul(factors)
                })
            })
        }
        _ => None,
    }
}

/// Nodes of all entries.
fn size(rows: &Rows) -> usize {
    rows.iter().flatten().map(Node::size).sum()
}

fn each(rows: &Rows, f: &dyn Fn(&Node) -> Node) -> Rows {
    rows.iter().map(|row| row.iter().map(f).collect()).collect()
}

fn times(a: &Rows, b: &Rows) -> Option<Rows> {
    let (n, k, m) = (a.len(), a[0].len(), b[0].len());
    if k != b.len() || n.max(k).max(m) > MAX_SIDE {
        return None;
    }
    if (size(a) * m + size(b) * n) > MAX_NODES {
        return None;
    }
    let entry = |i: usize, j: usize| Node::Add((0..k).map(|l| Node::Mul(vec![a[i][l].clone(), b[l][j].clone()])).collect());
    Some((0..n).map(|i| (0..m).map(|j| entry(i, j)).collect()).collect())
}

/// The determinant of a matrix of at most four rows, as an expression.
pub(super) fn determinant(node: &Node) -> Option<Node> {
    let rows = rows(node)?;
    (rows.len() == rows[0].len() && rows.len() <= 4).then(|| expanded(&rows))
}

/// By the first row.
fn expanded(rows: &Rows) -> Node {
    if rows.len() == 1 {
        return rows[0][0].clone();
    }
    let terms = (0..rows.len()).map(|j| {
        let minor: Rows =
            rows[1..].iter().map(|row| row.iter().enumerate().filter(|(k, _)| *k != j).map(|(_, x)| x.clone()).collect()).collect();
        let term = Node::Mul(vec![rows[0][j].clone(), expanded(&minor)]);
        if j % 2 == 1 { Node::Neg(Box::new(term)) } else { term }
    });
    Node::Add(terms.collect())
}
