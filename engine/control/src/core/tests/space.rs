//! The pool below a thin unit.

use portico_scsi::space::Space;

use super::super::space::SURVEY_INTERVAL;
use super::*;

fn thin() -> String {
    PLAIN.replace("filename /a", "filename /a\n            thin_provisioned 1")
}

fn told(world: &mut World, space: Option<Space>) -> Vec<String> {
    let unit = world.unit("a");
    world.tell(Mail::SpaceSurveyed { unit, space });
    world.said()
}

#[test]
fn a_thin_unit_is_surveyed_when_it_opens_and_again_after_each_answer() {
    let mut world = World::new(2);
    world.apply(&thin());
    assert_eq!(world.surveys, 1, "of two devices one is thin");
    world.said();
    world.pass(SURVEY_INTERVAL * 3);
    assert_eq!(world.surveys, 1, "one at a time");
    let plenty = Space { available_bytes: 1 << 30, used_bytes: 0 };
    let said = told(&mut world, Some(plenty));
    assert!(said.len() == 1 && said[0].starts_with("install"), "{said:?}");
    world.pass(SURVEY_INTERVAL);
    assert_eq!(world.surveys, 2);
    assert_eq!(told(&mut world, Some(plenty)), [""; 0], "nothing is another one");
    world.pass(SURVEY_INTERVAL);
    let low = told(&mut world, Some(Space { available_bytes: 5, used_bytes: 0 }));
    assert!(low.iter().any(|word| word.starts_with("log: device a: what it lies on has 5 bytes")), "{low:?}");
    let state = world.control.units[&world.unit("a")].fence.state();
    assert_eq!(state.space, Some(Space { available_bytes: 5, used_bytes: 0 }));
}

#[test]
fn a_device_that_cannot_tell_is_not_asked_again() {
    let mut world = World::new(2);
    world.apply(&thin());
    world.said();
    assert_eq!(told(&mut world, None), [""; 0]);
    world.pass(SURVEY_INTERVAL * 3);
    assert_eq!(world.surveys, 1);
}
