"""What a corpus costs: hours, disk and files, from a rate and the size of a real shard.

python bench/scale.py SHARD --images-per-s 17 --shard-size 10000
"""

import argparse
from pathlib import Path

import pyarrow.parquet as pq

COUNTS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("shard", type=Path, help="as the filter writes it")
    parser.add_argument("--images-per-s", type=float, required=True, help="of one device")
    parser.add_argument("--shard-size", type=int, required=True)
    o = parser.parse_args()
    bytes_an_image = o.shard.stat().st_size / pq.ParquetFile(o.shard).metadata.num_rows
    print(f"{bytes_an_image / 1000:.1f} kB an image; {o.images_per_s:g} images/s a device\n")
    print("| images | device hours | disk (GB) | shards | minutes a shard |")
    print("|---|---|---|---|---|")
    for count in COUNTS:
        hours = count / o.images_per_s / 3600
        shards = -(-count // o.shard_size)
        minutes = min(count, o.shard_size) / o.images_per_s / 60
        cells = (hours, count * bytes_an_image / 1e9)
        numbers = " | ".join(f"{cell:.3g}" for cell in cells)
        print(f"| {count:,} | {numbers} | {shards:,} | {minutes:.1f} |")


if __name__ == "__main__":
    main()
