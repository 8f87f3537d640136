//! The benchmarks' command line: what its words choose.

#[path = "../benches/client/choice.rs"]
mod choice;

use choice::choose;

fn chosen(words: &[&str]) -> Result<Vec<String>, String> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let groups = [
        ("load", names(&["load/read", "load/read-deep", "load/write"])),
        ("growth", names(&["growth/clients/1", "growth/clients/16", "growth/targets/1"])),
    ];
    let words: Vec<String> = names(words);
    choose(&groups, &words).map(|chosen| chosen.into_iter().collect())
}

#[test]
fn a_whole_name_chooses_one_figure() {
    assert_eq!(chosen(&["load/read"]).unwrap(), ["load/read"]);
    assert_eq!(chosen(&["growth/clients/1"]).unwrap(), ["growth/clients/1"]);
    assert_eq!(chosen(&["growth", "growth/clients/1"]).unwrap(), ["growth/clients/1"]);
}

#[test]
fn a_part_chooses_all_that_have_it() {
    assert_eq!(chosen(&["read"]).unwrap(), ["load/read", "load/read-deep"]);
    assert_eq!(chosen(&["clients/1"]).unwrap(), ["growth/clients/1", "growth/clients/16"]);
    assert_eq!(chosen(&["load/read", "deep"]).unwrap(), ["load/read", "load/read-deep"]);
}

#[test]
fn a_group_chooses_its_figures_and_limits_what_parts_choose() {
    assert_eq!(chosen(&["load"]).unwrap().len(), 3);
    assert_eq!(chosen(&["growth", "/1"]).unwrap().len(), 3);
    assert_eq!(chosen(&[]).unwrap().len(), 6);
}

#[test]
fn a_word_that_chooses_nothing_is_refused_with_what_there_is() {
    for words in [&["nosuch"][..], &["load", "clients"], &["load/write", "no/such"], &["load", "nosuch"]] {
        let why = chosen(words).unwrap_err();
        assert!(why.contains("group growth") && why.contains("load/read-deep"), "{why}");
    }
}
