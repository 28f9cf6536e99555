//! Known answers, and exchanges between both ends.

use super::*;

const SECRET: &str = "open-sesame-1";
const OTHER_SECRET: &str = "shut-sesame-22";

fn nonce(identifier: u8) -> Nonce {
    let mut bytes = [identifier; NONCE_BYTES];
    (1..).zip(&mut bytes[1..]).for_each(|(at, byte): (u8, _)| *byte = at - 1 + identifier - 0x2a);
    Nonce::new(bytes)
}

fn keys(said: &Said) -> Keys<'_> {
    let mut keys = Keys::default();
    for (key, value) in said {
        assert_eq!(keys.take(key, value.as_bytes()), Ok(true));
    }
    keys
}

fn joe() -> User {
    User::new("joe", SECRET)
}

fn gateway() -> User {
    User::new("gateway", OTHER_SECRET)
}

/// Both ends, as far as they get.
fn meet(credentials: Credentials, users: Users<'_>) -> Result<(Challenger, Prover), Refusal> {
    let (mut target, mut initiator) =
        (Challenger::new(nonce(0x2a)), Prover::new(credentials, Some(nonce(0x77))));
    let challenge = target.receive(&keys(&initiator.offer()), users)?;
    assert!(target.awaits_proof() && !initiator.has_answered());
    let proof = initiator.receive(&keys(&challenge))?;
    assert!(initiator.has_answered());
    let answer = target.receive(&keys(&proof), users)?;
    initiator.receive(&keys(&answer))?;
    Ok((target, initiator))
}

#[test]
fn responses_are_the_digests_that_others_compute() {
    // RFC 1994 §4.1: identifier, secret, challenge. Made with OpenSSL: `printf '\x2aopen-sesame-1\0\1…\x0f' | openssl dgst`.
    let challenge: Vec<u8> = (0..16).collect();
    for (algorithm, known) in [
        (Algorithm::Md5, "0x35948dbc18989f49a2cbceeb3e395f57"),
        (Algorithm::Sha1, "0xfb3f3b3d97111686d9177e564fbd8beee1d2f1b0"),
        (Algorithm::Sha256, "0x16774a6627090c9221b1a47d73340bf684ed6347fbcc0ab916d2b05937f38e9c"),
        (Algorithm::Sha3_256, "0x2f8004ef54663c19d6bbc334330cc9a5da2b7de78d18f984e505295b27e8cd7b"),
    ] {
        let response = algorithm.response(0x2a, &Secret::new(SECRET), &challenge);
        assert_eq!(hexadecimal(response.as_bytes()), known, "{algorithm:?}");
        let mut wrong = response.as_bytes().to_vec();
        assert!(response.is(&wrong));
        wrong[0] ^= 1;
        assert!(!response.is(&wrong) && !response.is(&wrong[1..]) && !response.is(&[]));
    }
}

#[test]
fn each_algorithm_proves_both_ways() {
    let (incoming, outgoing) = ([User::new("ann", "some-other-secret"), joe()], gateway());
    let users = Users { incoming: &incoming, outgoing: Some(&outgoing) };
    for algorithm in Algorithm::ALL {
        let (target, initiator) =
            meet(Credentials::new(joe()).mutual(gateway()).with(algorithm), users).unwrap();
        assert_eq!((target.proven(), initiator.is_done()), (Some("joe"), true), "{algorithm:?}");
        let (target, initiator) = meet(Credentials::new(joe()).with(algorithm), users).unwrap();
        assert_eq!((target.proven(), initiator.is_done()), (Some("joe"), true), "{algorithm:?}");
    }
}

#[test]
fn wrong_secrets_and_unknown_names_prove_nothing() {
    let (incoming, outgoing) = ([joe()], gateway());
    let users = Users { incoming: &incoming, outgoing: Some(&outgoing) };
    let refused = |credentials| meet(credentials, users).map(|_| ()).unwrap_err();
    assert_eq!(refused(Credentials::new(User::new("joe", OTHER_SECRET))), Refusal::ResponseWrong);
    assert_eq!(refused(Credentials::new(User::new("Joe", SECRET))), Refusal::UserUnknown);
    assert_eq!(
        refused(Credentials::new(User::new("ann", "0000000000000000"))),
        Refusal::UserUnknown,
        "not even with the secret that nobody has"
    );
    let wrong_target = |target| refused(Credentials::new(joe()).mutual(target));
    assert_eq!(wrong_target(User::new("gateway", "something-else")), Refusal::ResponseWrong);
    assert_eq!(wrong_target(User::new("someone", OTHER_SECRET)), Refusal::UserUnknown);
    assert_eq!(wrong_target(User::new("gateway", SECRET)), Refusal::SameSecret);
}

#[test]
fn without_an_outgoing_user_nothing_is_proven_to_who_asks() {
    let incoming = [joe()];
    let users = Users { incoming: &incoming, outgoing: None };
    let refused = meet(Credentials::new(joe()).mutual(gateway()), users).map(|_| ()).unwrap_err();
    assert_eq!(refused, Refusal::NothingToProve);
}

#[test]
fn one_secret_in_both_directions_is_refused_by_the_target_too() {
    let (incoming, outgoing) = ([joe()], User::new("gateway", SECRET));
    let users = Users { incoming: &incoming, outgoing: Some(&outgoing) };
    let refused = meet(Credentials::new(joe()).mutual(gateway()), users).map(|_| ()).unwrap_err();
    assert_eq!(refused, Refusal::SameSecret);
}

#[test]
fn our_own_challenge_is_not_answered() {
    // §9.2.1: an initiator that knows no secret might have us answer our own challenge.
    let (incoming, outgoing) = ([joe()], gateway());
    let users = Users { incoming: &incoming, outgoing: Some(&outgoing) };
    let mut target = Challenger::new(nonce(0x2a));
    let challenge = target.receive(&keys(&vec![("CHAP_A", "7".into())]), users).unwrap();
    let sent = keys(&challenge).challenge.unwrap();
    let mut buffer = [0; LARGE_BINARY_BYTES_MAX];
    let response = Algorithm::Sha256.response(0x2a, &joe().secret, binary(sent, &mut buffer).unwrap());
    let reflected = vec![
        ("CHAP_N", "joe".to_owned()),
        ("CHAP_R", hexadecimal(response.as_bytes())),
        ("CHAP_I", "3".to_owned()),
        ("CHAP_C", String::from_utf8(sent.to_ascii_uppercase()).unwrap()),
    ];
    assert_eq!(target.receive(&keys(&reflected), users), Err(Refusal::Reflected));
    assert_eq!(target.proven(), None);

    let mut initiator = Prover::new(Credentials::new(joe()).mutual(gateway()), Some(nonce(0x2a)));
    assert_eq!(initiator.receive(&keys(&challenge)), Err(Refusal::Reflected), "nor by the other end");
}

#[test]
fn the_first_algorithm_of_the_initiators_list_that_we_have_is_taken() {
    for (offered, taken) in [("5", "5"), ("8,7,6,5", "8"), ("9,0x6,5", "6"), ("5,8", "5"), ("129,7", "7")] {
        let said = Challenger::new(nonce(0x2a))
            .receive(&keys(&vec![("CHAP_A", offered.into())]), Users::default())
            .unwrap();
        assert_eq!(said[0], ("CHAP_A", taken.to_owned()), "{offered}");
        assert_eq!(said[1], ("CHAP_I", "42".to_owned()));
        assert!(said[2].1.starts_with("0x000102030405"), "{said:?}");
    }
    for offered in ["", "0", "4", "9", "256", "five", "SHA1"] {
        let refused = Challenger::new(nonce(0x2a))
            .receive(&keys(&vec![("CHAP_A", offered.into())]), Users::default())
            .unwrap_err();
        assert_eq!(refused, Refusal::NoCommonAlgorithm, "{offered}");
    }
}

#[test]
fn a_step_out_of_place_or_form_is_no_proof() {
    let incoming = [joe()];
    let users = Users { incoming: &incoming, outgoing: None };
    let at_once = |said: Said| Challenger::new(nonce(0x2a)).receive(&keys(&said), users).unwrap_err();
    assert_eq!(at_once(vec![("CHAP_N", "joe".into()), ("CHAP_R", "0x00".into())]), Refusal::OutOfPlace);
    assert_eq!(at_once(vec![("CHAP_A", "5".into()), ("CHAP_N", "joe".into())]), Refusal::OutOfPlace);

    let proof = |said: Vec<(&'static str, &str)>| {
        let mut target = Challenger::new(nonce(0x2a));
        target.receive(&keys(&vec![("CHAP_A", "5".into())]), users).unwrap();
        let said = said.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        target.receive(&keys(&said), users).map(|_| ())
    };
    let right = Algorithm::Md5.response(0x2a, &joe().secret, &(0..16).collect::<Vec<_>>());
    let right = hexadecimal(right.as_bytes());
    assert_eq!(proof(vec![("CHAP_N", "joe"), ("CHAP_R", &right)]), Ok(()));
    assert_eq!(proof(vec![]), Ok(()), "an empty step changes nothing");
    assert_eq!(proof(vec![("CHAP_N", "joe")]), Err(Refusal::ProofMissing));
    assert_eq!(proof(vec![("CHAP_R", &right)]), Err(Refusal::ProofMissing));
    assert_eq!(proof(vec![("CHAP_N", "joe"), ("CHAP_R", "12")]), Err(Refusal::Malformed));
    assert_eq!(proof(vec![("CHAP_N", "joe"), ("CHAP_R", "0x")]), Err(Refusal::Malformed));
    assert_eq!(proof(vec![("CHAP_N", "joe"), ("CHAP_R", &right[..32])]), Err(Refusal::ResponseWrong));
    assert_eq!(proof(vec![("CHAP_A", "5"), ("CHAP_N", "joe"), ("CHAP_R", &right)]), Err(Refusal::OutOfPlace));
    let asked = |identifier, challenge| {
        proof(vec![("CHAP_N", "joe"), ("CHAP_R", &right), ("CHAP_I", identifier), ("CHAP_C", challenge)])
    };
    assert_eq!(asked("256", "0x01"), Err(Refusal::Malformed));
    assert_eq!(asked("1", "01"), Err(Refusal::Malformed));
    assert_eq!(
        asked("1", &format!("0x{}", "01".repeat(1025))),
        Err(Refusal::Malformed),
        "1024 bytes (§12.1.3)"
    );
    assert_eq!(proof(vec![("CHAP_N", "joe"), ("CHAP_R", &right), ("CHAP_I", "1")]), Err(Refusal::Malformed));
    let mut twice = Keys::default();
    assert_eq!(twice.take("CHAP_N", b"joe"), Ok(true));
    assert_eq!(twice.take("CHAP_N", b"ann"), Err(Refusal::Repeated));
    assert_eq!(twice.take("HeaderDigest", b"None"), Ok(false));
}

#[test]
fn a_proof_is_accepted_once() {
    let incoming = [joe()];
    let users = Users { incoming: &incoming, outgoing: None };
    let (mut target, _) = meet(Credentials::new(joe()), users).unwrap();
    let again = target.receive(&keys(&vec![("CHAP_A", "5".into())]), users);
    assert_eq!(again, Err(Refusal::OutOfPlace));
}

#[test]
fn the_target_must_take_an_algorithm_that_was_offered() {
    let mut initiator = Prover::new(Credentials::new(joe()).with(Algorithm::Sha256), None);
    let weaker =
        vec![("CHAP_A", "5".to_owned()), ("CHAP_I", "1".to_owned()), ("CHAP_C", "0x0102".to_owned())];
    assert_eq!(initiator.receive(&keys(&weaker)), Err(Refusal::NoCommonAlgorithm));
    let mut initiator = Prover::new(Credentials::new(joe()), None);
    assert_eq!(initiator.receive(&Keys::default()), Err(Refusal::OutOfPlace), "no challenge at all");
}

#[test]
fn nothing_shows_a_secret() {
    let mutual = Credentials::new(joe()).mutual(gateway());
    let prover = Prover::new(mutual.clone(), Some(nonce(0x77)));
    let incoming = [joe()];
    let users = Users { incoming: &incoming, outgoing: Some(&incoming[0]) };
    let response = Algorithm::Md5.response(1, &joe().secret, b"x");
    let shown = format!("{mutual:?} {prover:?} {users:?} {response:?} {:?}", nonce(0x2a));
    assert!(shown.contains("joe") && shown.contains("gateway"), "names are no secrets");
    assert!(!shown.contains("sesame"), "{shown}");
    assert!(!shown.contains(&hexadecimal(response.as_bytes())[2..]), "{shown}");
}
