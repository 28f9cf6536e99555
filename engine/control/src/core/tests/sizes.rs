//! Devices that get another size while they are open.

use super::*;

fn blocks(world: &World, device: &str) -> u64 {
    world.control.units[&world.unit(device)].fence.state().geometry.blocks()
}

fn with_size(size_bytes: u64) -> String {
    PLAIN.replace("filename /a", &format!("filename /a\n            size {size_bytes}"))
}

#[test]
fn a_device_that_tells_of_its_size_is_installed_everywhere() {
    let mut world = World::serving(PLAIN);
    let unit = world.unit("a");
    world.tell(Mail::Resized { unit, size_bytes: 4 << 20 });
    let said = world.said();
    assert_eq!(said[0], "log: device a has 8192 blocks now, and had 2048");
    assert!(said[1].starts_with("install"), "{said:?}");
    world.tell(Mail::Resized { unit, size_bytes: 100 });
    assert!(world.said()[0].starts_with("log: device a keeps its size"));
    assert_eq!(blocks(&world, "a"), 8192);
    world.tell(Mail::Resized { unit, size_bytes: 4 << 20 });
    assert_eq!(world.said(), [""; 0], "nothing is another one");
}

#[test]
fn what_is_told_while_the_device_opens_counts_more_than_what_the_opening_saw() {
    let mut world = World::new(2);
    world.manners.opens = false;
    world.apply(PLAIN);
    let (a, b) = (world.unit("a"), world.unit("b"));
    world.tell(Mail::Resized { unit: a, size_bytes: 4 << 20 });
    world.open(a);
    world.open(b);
    assert_eq!((blocks(&world, "a"), blocks(&world, "b")), (8192, 2048));
}

#[test]
fn a_size_in_the_configuration_is_asked_of_the_medium_and_then_installed() {
    let mut world = World::serving(PLAIN);
    world.manners.resizes = false;
    world.apply(&with_size(2 << 20));
    let said = world.said();
    assert!(said.contains(&"resize a".to_owned()) && !said.iter().any(|word| word.starts_with("install")));
    let unit = world.unit("a");
    world.tell(Mail::DeviceResized { unit, result: Ok(2 << 20) });
    assert_eq!(blocks(&world, "a"), 4096);
    assert_eq!(world.said()[0], "log: device a has 4096 blocks now, and had 2048");
}

#[test]
fn a_size_that_cannot_be_had_is_named_and_changes_nothing() {
    let mut world = World::serving(PLAIN);
    world.manners.resizes = false;
    world.apply(&with_size(2 << 20));
    world.said();
    let (unit, result) = (world.unit("a"), Err("the file system is full".to_owned()));
    world.tell(Mail::DeviceResized { unit, result });
    assert_eq!(world.said(), ["log: device a keeps its size: the file system is full"]);
    assert_eq!(blocks(&world, "a"), 2048);
}

#[test]
fn of_several_sizes_in_a_row_the_last_one_holds() {
    let mut world = World::serving(PLAIN);
    world.manners.resizes = false;
    for size_bytes in [2 << 20, 3 << 20, 1 << 20] {
        world.apply(&with_size(size_bytes));
    }
    let asked = |said: Vec<String>| said.iter().filter(|word| *word == "resize a").count();
    assert_eq!(asked(world.said()), 1, "one at a time");
    let unit = world.unit("a");
    world.tell(Mail::DeviceResized { unit, result: Ok(2 << 20) });
    assert_eq!(asked(world.said()), 1, "and once more for what came meanwhile");
    world.tell(Mail::DeviceResized { unit, result: Ok(1 << 20) });
    assert_eq!((asked(world.said()), blocks(&world, "a")), (0, 2048));
}

#[test]
fn a_size_that_was_looked_up_before_another_was_announced_counts_for_nothing() {
    let mut world = World::serving(PLAIN);
    world.manners.resizes = false;
    world.apply(PLAIN);
    assert!(world.said().contains(&"resize a".to_owned()));
    let unit = world.unit("a");
    world.tell(Mail::Resized { unit, size_bytes: 4 << 20 });
    world.tell(Mail::DeviceResized { unit, result: Ok(1 << 20) });
    assert_eq!(blocks(&world, "a"), 8192);
    assert!(world.said().contains(&"resize a".to_owned()), "it is looked at again");
    world.tell(Mail::DeviceResized { unit, result: Ok(4 << 20) });
    assert_eq!(blocks(&world, "a"), 8192);
}
