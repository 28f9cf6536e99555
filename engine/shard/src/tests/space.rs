//! A pool that is empty ends the writes that need space, and nothing else.

use super::*;

#[test]
fn a_write_without_space_fails_alone() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.open(2, 8);
    let mut peer = bench.log_in(&[(0, 1), (1, 2)], IMMEDIATE);
    bench.write(&mut peer, 0, 1, 512, &[1; 512]);
    bench.write(&mut peer, 0, 2, 512, &[2; 512]);
    bench.write(&mut peer, 1, 3, 512, &[3; 512]);
    bench.read(&mut peer, 0, 4, 512);
    bench.world.borrow_mut().run_out_of_space();
    bench.settle();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
    while !bench.world.borrow().at_medium.is_empty() {
        bench.land();
    }
    let heard = bench.heard(&peer);
    assert!(heard.contains(&Heard::Status(2, GOOD)) && heard.contains(&Heard::Status(3, GOOD)), "{heard:?}");
    assert!(
        heard.iter().any(|word| matches!(word, Heard::Data(4, data, true) if data.len() == 512)),
        "{heard:?}"
    );
}
