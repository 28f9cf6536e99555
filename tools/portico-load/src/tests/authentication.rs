//! CHAP, one way and mutual.

use super::*;

/// Options that name a user with his secret, and the target with its own.
fn credentials(folder: &std::path::Path, joe: &str, jane: Option<&str>) -> String {
    let file = |name: &str, secret: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        path.display().to_string()
    };
    let mut options = format!("--count 50 --chap-user joe --chap-secret-file {}", file("joe", joe));
    if let Some(jane) = jane {
        options += &format!(" --chap-target-user jane --chap-target-secret-file {}", file("jane", jane));
    }
    options
}

#[test]
fn who_knows_the_secret_loads_the_target() {
    let folder = tempfile::tempdir().unwrap();
    for jane in [None, Some("a secret of jane's")] {
        let arguments = credentials(folder.path(), "a secret of joe's", jane);
        let tally = run(Fault::AsksForChap, &arguments);
        assert!(tally.is_clean() && tally.reads.commands == 50, "{tally:?}");
    }
    let tally = run(Fault::None, &credentials(folder.path(), "any secret is good", None));
    assert!(tally.is_clean(), "a target that does not ask is loaded without: {tally:?}");
}

#[test]
fn who_does_not_know_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let why = refused(Fault::AsksForChap, &credentials(folder.path(), "some other secret", None));
    assert!(why.contains("login refused, status 0x0201"), "{why}");
    assert!(refused(Fault::AsksForChap, "").contains("login refused"));
}

#[test]
fn a_target_that_cannot_prove_itself_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = credentials(folder.path(), "a secret of joe's", Some("not what jane knows"));
    let why = refused(Fault::AsksForChap, &arguments);
    assert!(why.contains("127.0.0.1:"), "{why}");
    let none = credentials(folder.path(), "a secret of joe's", Some("a secret of jane's"));
    assert!(!refused(Fault::None, &none).is_empty(), "None is not offered where a proof is wanted");
}
