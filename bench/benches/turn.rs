//! Whole turns of a shard in a world without a kernel: a read, 64 reads that come at once, a write.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portico_bench::world::{Kind, World};

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turns of a shard");
    for (kind, name) in [(Kind::Null, "null"), (Kind::Ram, "RAM")] {
        for count in [1, 64] {
            let mut world = World::new(kind);
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(format!("{count} × 4 KiB read, {name}"), |bencher| {
                bencher.iter(|| world.read(count));
            });
        }
        let mut world = World::new(kind);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("4 KiB written, {name}"), |bencher| bencher.iter(|| world.write(1)));
        assert!(world.was_answered(1, true));
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
