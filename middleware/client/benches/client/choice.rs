//! Which figures are measured, by the words of the command line.

use std::collections::BTreeSet;

/// A group's name and its figures'.
pub(crate) type Names<'a> = (&'a str, Vec<String>);

/// What one word chooses.
fn chosen_by<'a>(word: &str, figures: &[&'a String]) -> Vec<&'a String> {
    match figures.iter().find(|figure| **figure == word) {
        // Others may only begin with it.
        Some(whole) => vec![whole],
        None => figures.iter().copied().filter(|figure| figure.contains(word)).collect(),
    }
}

/// Words that are groups' names choose among groups, all others among the figures of these (of all groups if none is named): a figure's
/// whole name that figure alone, a part of names all that have it. A word that chooses nothing is an error.
pub(crate) fn choose(groups: &[Names<'_>], words: &[String]) -> Result<BTreeSet<String>, String> {
    let is_group = |word: &String| groups.iter().any(|(name, _)| name == word);
    let (named, words): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| is_group(word));
    let within = groups.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|word| word == name));
    let figures: Vec<&String> = within.flat_map(|(_, figures)| figures).collect();
    let mut chosen = BTreeSet::new();
    for word in &words {
        let found = chosen_by(word, &figures);
        if found.is_empty() {
            return Err(format!(
                "there is neither a group nor a figure {word:?}; there are:\n{}",
                list(groups, &named)
            ));
        }
        chosen.extend(found.into_iter().cloned());
    }
    if words.is_empty() {
        chosen.extend(figures.into_iter().cloned());
    }
    Ok(chosen)
}

/// The groups, and the figures of those that were named.
fn list(groups: &[Names<'_>], named: &[&String]) -> String {
    let mut text = String::new();
    for (name, figures) in groups {
        text += &format!("  group {name}\n");
        if named.is_empty() || named.iter().any(|word| word == name) {
            text.extend(figures.iter().map(|figure| format!("    {figure}\n")));
        }
    }
    text
}
