//! Completions and man pages: made of the same declarations as the help.

use std::process::Command;

use crate::rig::Place;

#[test]
fn bash_takes_the_completions_and_completes_a_command_by_them() {
    let place = Place::new();
    place.write("completions", place.run(&["completions", "bash"]).succeeded().out);
    let script = "set -e; . ./completions; COMP_WORDS=(headworks dead-letters re); COMP_CWORD=2; \
                  _headworks headworks re dead-letters; echo \"${COMPREPLY[@]}\"";
    let said = Command::new("bash").args(["-c", script]).current_dir(place.path("")).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "replay");
}

#[test]
fn there_are_completions_for_every_usual_shell_and_another_one_is_wrong_usage() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.run(&["completions", shell]).succeeded().text();
        assert!(script.contains("dead-letters"), "{shell}");
    }
    place.run(&["completions", "cmd"]).with(2);
}

#[test]
fn every_command_has_a_man_page_and_the_first_one_has_the_exit_codes() {
    let place = Place::new();
    place.run(&["man", "pages"]).succeeded();
    for command in ["", "-run", "-backup", "-restore", "-dead-letters", "-dead-letters-replay", "-tenants-set"] {
        let page = std::fs::read_to_string(place.path(&format!("pages/headworks{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
    let page = place.run(&["man"]).succeeded().text();
    assert!(page.contains("Exit codes: 0 done"), "{page}");
    place.write("file", "");
    place.run(&["man", "file/pages"]).with(73);
}
