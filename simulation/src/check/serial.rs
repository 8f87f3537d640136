//! Whether the independent transactions could have run one after the other (after Elle: Kingsbury and Alvaro, VLDB 2020).
//!
//! Values are unique, so each read says which transaction it depends on; each written cell was read before by the same
//! transaction, so the order of the versions can be told. Edges: who wrote what another one read (wr), who wrote the next
//! version (ww), who wrote what another one should have seen had it come later (rw), and who ended before another one began.
//! A cycle is a contradiction. Knows nothing of stamps.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{Cell, Optimistic, Told, Value};

type Node = usize;
type Edges = BTreeMap<Node, BTreeMap<Node, &'static str>>;

/// Every contradiction among the transactions.
pub(super) fn serial(all: &[Optimistic], found: &mut Vec<Violation>) {
    let mut bad = |what: String| found.push(Violation { invariant: "serial", what });
    let writers: BTreeMap<(Cell, Value), Node> =
        all.iter().enumerate().flat_map(|(node, one)| one.writes.iter().map(move |written| (*written, node))).collect();
    let is_read = |node: Node| all.iter().any(|other| other.reads.iter().any(|read| all[node].writes.contains(read)));
    let mut there = vec![false; all.len()];
    for (node, one) in all.iter().enumerate() {
        there[node] = match one.outcome {
            Told::Done => true,
            Told::Refused => false,
            Told::Nothing => is_read(node),
        };
    }
    let mut edges = Edges::new();
    let mut next: BTreeMap<(Cell, Value), Node> = BTreeMap::new();
    for (node, one) in all.iter().enumerate().filter(|(node, _)| there[*node]) {
        for (cell, value) in &one.reads {
            let writer = match writers.get(&(*cell, *value)) {
                Some(writer) => Some(*writer),
                None if *value == 0 => None,
                None => {
                    bad(format!("transaction {node} read {value:#x} in cell {cell}, which nobody wrote"));
                    continue;
                }
            };
            if let Some(writer) = writer {
                if !there[writer] {
                    bad(format!("transaction {node} read {value:#x} in cell {cell} from {writer}, which was refused"));
                }
                edges.entry(writer).or_default().insert(node, "wr");
            }
            if one.writes.iter().any(|(written, _)| written == cell) {
                if let Some(other) = next.insert((*cell, *value), node) {
                    bad(format!("{other} and {node} both wrote the next version of {value:#x} in cell {cell}"));
                }
                if let Some(writer) = writer {
                    edges.entry(writer).or_default().insert(node, "ww");
                }
            }
        }
    }
    for (node, one) in all.iter().enumerate().filter(|(node, _)| there[*node]) {
        for read in &one.reads {
            if let Some(overwriter) = next.get(read).filter(|overwriter| **overwriter != node) {
                edges.entry(node).or_default().insert(*overwriter, "rw");
            }
        }
        let Some(ended_ns) = one.ended_ns else { continue };
        let later = all.iter().enumerate().filter(|(other, later)| there[*other] && later.began_ns > ended_ns);
        for (other, _) in later.filter(|(_, later)| later.ended_ns.is_some()) {
            edges.entry(node).or_default().entry(other).or_insert("time");
        }
    }
    if let Some(cycle) = cycle(&edges, all.len()) {
        bad(format!("a cycle of transactions: {}", shown(&cycle, &edges, all)));
    }
}

fn shown(cycle: &[Node], edges: &Edges, all: &[Optimistic]) -> String {
    let pairs = cycle.iter().zip(cycle.iter().cycle().skip(1));
    let part = |(from, to): (&Node, &Node)| {
        let how = edges.get(from).and_then(|edges| edges.get(to)).copied().unwrap_or("?");
        let Optimistic { reads, writes, .. } = &all[*from];
        format!("{from} (read {reads:x?}, wrote {writes:x?}) -{how}->")
    };
    pairs.map(part).collect::<Vec<_>>().join(" ")
}

/// Some cycle, by a depth-first search.
fn cycle(edges: &Edges, nodes: usize) -> Option<Vec<Node>> {
    let mut done = BTreeSet::new();
    for start in 0..nodes {
        let mut path: Vec<(Node, Vec<Node>)> = vec![];
        let mut enter = Some(start);
        loop {
            if let Some(node) = enter.take()
                && !done.contains(&node)
            {
                if let Some(at) = path.iter().position(|(known, _)| *known == node) {
                    return Some(path[at..].iter().map(|(node, _)| *node).collect());
                }
                path.push((node, edges.get(&node).into_iter().flat_map(|edges| edges.keys().copied()).collect()));
            }
            let Some((node, left)) = path.last_mut() else { break };
            match left.pop() {
                Some(next) => enter = Some(next),
                None => {
                    done.insert(*node);
                    path.pop();
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(reads: &[(Cell, Value)], writes: &[(Cell, Value)]) -> Optimistic {
        let (reads, writes) = (reads.to_vec(), writes.to_vec());
        Optimistic { reads, writes, outcome: Told::Done, began_ns: 1, ended_ns: Some(1) }
    }

    fn violations(all: &[Optimistic]) -> usize {
        let mut found = vec![];
        serial(all, &mut found);
        found.len()
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let all = [one(&[(1, 0)], &[(1, 10)]), one(&[(1, 10), (2, 0)], &[(1, 11)]), one(&[(1, 10), (2, 0)], &[])];
        assert_eq!(violations(&all), 0);
    }

    #[test]
    fn a_lost_update_write_skew_and_a_torn_read_are_found() {
        assert_eq!(violations(&[one(&[(1, 0)], &[(1, 10)]), one(&[(1, 0)], &[(1, 11)])]), 1, "lost update");
        let skew = [one(&[(1, 0), (2, 0)], &[(1, 10)]), one(&[(1, 0), (2, 0)], &[(2, 20)])];
        assert_eq!(violations(&skew), 1, "write skew");
        let writer = one(&[(1, 0), (2, 0)], &[(1, 10), (2, 20)]);
        assert_eq!(violations(&[writer.clone(), one(&[(1, 10), (2, 0)], &[])]), 1, "half of another one");
        let refused = Optimistic { outcome: Told::Refused, ..writer.clone() };
        assert_eq!(violations(&[refused, one(&[(1, 10)], &[])]), 1, "of one that was refused");
        let late = Optimistic { began_ns: 5, ended_ns: Some(6), ..one(&[(1, 0)], &[]) };
        assert_eq!(violations(&[writer, late]), 1, "an old state after the fact");
    }

    #[test]
    fn what_has_no_answer_counts_only_if_somebody_saw_it() {
        let unknown = Optimistic { outcome: Told::Nothing, ..one(&[(1, 0)], &[(1, 10)]) };
        assert_eq!(violations(&[unknown.clone(), one(&[(1, 0)], &[(1, 11)])]), 0);
        assert_ne!(violations(&[unknown, one(&[(1, 0)], &[(1, 11)]), one(&[(1, 10)], &[])]), 0);
    }
}
