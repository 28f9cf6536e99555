//! Single steps of the data path: a header parsed, a header written, a CDB judged.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use portico_bench::{READ_10, data_in, disk, read_command};
use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::wire::{BHS_BYTES, InitiatorPdu};
use portico_scsi::device_server::{self, Action, Context, NexusState};
use portico_scsi::lun::Lun;
use portico_scsi::reservation::NexusId;

fn pdus(criterion: &mut Criterion) {
    let bhs = read_command();
    criterion.bench_function("a SCSI Command is framed and parsed", |bencher| {
        bencher.iter(|| {
            let lengths = Lengths::of(black_box(&bhs), Digests::NONE, 262_144);
            (lengths, InitiatorPdu::parse(black_box(&bhs)))
        });
    });
    let pdu = data_in();
    let mut bhs = [0; BHS_BYTES];
    criterion.bench_function("a Data-In with status is written", |bencher| {
        bencher.iter(|| black_box(&pdu).emit(black_box(&mut bhs)));
    });
}

fn cdbs(criterion: &mut Criterion) {
    let unit = disk();
    let mut nexus = NexusState::new();
    while nexus.attentions.take().is_some() {}
    let luns = [Lun::from_bytes([0; 8])];
    let context = Context {
        luns: &luns,
        relative_target_port: 1,
        target_ports: &[],
        read_only: false,
        carries_queries: false,
    };
    let mut judge = move |cdb: &[u8]| {
        device_server::begin(&unit, &mut nexus, NexusId(1), &context, black_box(cdb), &mut [])
    };
    assert!(matches!(judge(&READ_10[..10]), Action::Medium(_)), "a READ goes to the medium");
    criterion.bench_function("a READ(10) is judged by the device server", |bencher| {
        bencher.iter(|| judge(&READ_10[..10]));
    });
}

criterion_group!(benches, pdus, cdbs);
criterion_main!(benches);
