//! The short way of a command in its turn, beside the long one.

use super::*;
use proptest::prelude::*;

/// A command as [`Session::receive_in_turn`] takes it, or as the three calls for which it stands.
fn receive(dialogue: &mut Dialogue, command: &ScsiCommand, is_short: bool) -> Option<Segment> {
    if is_short
        && let Some((task, segment)) = dialogue.session.receive_in_turn(Seat::LEADING, command, dialogue.now)
    {
        assert_eq!(dialogue.session.command(task), command);
        assert_eq!(dialogue.session.next_request(), None, "it brings no other with it");
        return Some(segment);
    }
    let Ok(Received::Request { task, segment }) = dialogue.send(InitiatorPdu::ScsiCommand(*command)) else {
        return None;
    };
    dialogue.session.data_arrived(Seat::LEADING, task);
    while dialogue.session.next_request().is_some() {}
    Some(segment)
}

#[test]
fn it_is_for_plain_commands_alone() {
    let taken = |command: ScsiCommand| {
        let mut dialogue = Dialogue::new();
        dialogue.session.receive_in_turn(Seat::LEADING, &command, dialogue.now).is_some()
    };
    let plain = command(7, 1);
    let write = ScsiCommand { write: true, expected_data_transfer_length: 16_384, ..plain };
    assert!(taken(plain) && taken(ScsiCommand { read: true, ..plain }));
    assert!(taken(ScsiCommand { data_segment_length: 4096, ..write }));
    for other in [
        command(7, 2),
        command(7, 0),
        ScsiCommand { immediate: true, ..plain },
        ScsiCommand { total_ahs_words: 1, ..plain },
        ScsiCommand { read: true, ..write },
        ScsiCommand { data_segment_length: 8193, ..write },
    ] {
        assert!(!taken(other), "{other:?}");
    }
}

#[test]
fn a_function_on_a_task_set_has_its_turn_first() {
    let mut dialogue = Dialogue::new();
    let function = management(TaskManagementFunction::AbortTaskSet, 9, 2);
    let task = dialogue.request(InitiatorPdu::TaskManagement(function));
    assert_eq!(dialogue.session.next_request(), None, "command 1 was sent before it");
    assert_eq!(dialogue.session.receive_in_turn(Seat::LEADING, &command(7, 1), dialogue.now), None);
    let first = dialogue.request(plain(7, 1));
    assert_eq!([dialogue.session.next_request(), dialogue.session.next_request()], [Some(first), Some(task)]);
}

proptest! {
    /// Commands of all kinds and numbers, answered and retired in between: both ways lead to the same.
    #[test]
    fn the_short_way_leads_where_the_long_one_does(
        steps: Vec<(u8, u8, bool)>, first: u32, width in 1_u16..9,
    ) {
        let start = || Start { cmd_sn: CmdSn(first), queued_commands: width, ..start() };
        let (mut long, mut short) = (Dialogue::with(start()), Dialogue::with(start()));
        for (step, choice, flag) in steps {
            let ahead = u32::from(choice % 3);
            let cmd_sn = long.session.window().expected().advanced_by(if step % 4 == 0 { ahead } else { 0 });
            let data_segment_length = u32::from(choice) * 50;
            let command = ScsiCommand {
                read: flag,
                write: !flag,
                data_segment_length: if flag { 0 } else { data_segment_length },
                expected_data_transfer_length: data_segment_length.max(1) * u32::from(step % 3 + 1),
                ..command(cmd_sn.0 & 0x7fff_ffff, cmd_sn.0)
            };
            let (by_long, by_short) = (receive(&mut long, &command, false), receive(&mut short, &command, true));
            prop_assert_eq!(by_long, by_short);
            prop_assert_eq!(long.session.window(), short.session.window());
            let of = |dialogue: &Dialogue| {
                let mut all: Vec<_> = dialogue.session.live_commands().map(|(task, command)| {
                    (command.cmd_sn.0, dialogue.session.progress(task))
                }).collect();
                all.sort_by_key(|(cmd_sn, _)| *cmd_sn);
                all
            };
            prop_assert_eq!(of(&long), of(&short));
            if step % 5 == 0 {
                for dialogue in [&mut long, &mut short] {
                    let delivered = dialogue.session.live_commands()
                        .filter(|(task, _)| dialogue.session.tasks.task(*task).stage == Stage::Delivered)
                        .min_by_key(|(_, command)| command.cmd_sn.0).map(|(task, _)| task);
                    if let Some(task) = delivered {
                        dialogue.respond(task, GOOD);
                        dialogue.session.retire(task);
                    }
                }
            }
        }
    }
}
