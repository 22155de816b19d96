"""Putting a session that was cut short in order: only what is torn at its end goes, nothing that was acknowledged.

A verified moment is one whose line is whole and whose bytes in the pack are what the line says. Behind the last one
both files of its shard are cut; damage with verified moments behind it stays, since readers name and skip it.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from motorbabble.disk import Disk
from motorbabble.recording.format import META, SessionMeta, events_file, frames_file, packs_in, shards_in
from motorbabble.recording.reader import Moment, Shard, meta_of


class Recovered(NamedTuple):
    meta: SessionMeta
    moments: int  # the number the next moment would have
    shards: int  # the number the next shard would have
    episodes: int  # one more than the newest moment's episode; 0 when there is none
    cut: bool  # whether anything had to go


def recover(folder: Path, disk: Disk) -> Recovered:
    """Cut what is torn; say `recovered` in the metadata unless it says `closed` and is whole. Call it holding the session's lock."""
    meta, remade = meta_of(folder)
    moments = shards = episodes = 0
    cut = False
    if remade:  # now, since the header it was made from may go
        disk.write_whole(folder / META, meta.to_bytes())
    for number in sorted({*shards_in(folder), *packs_in(folder)}, reverse=True):
        shard = Shard(folder, number)
        if shard.trouble:
            raise shard.trouble
        newest, lines_end, pack_end = shard.verified_end()
        for name, end in ((events_file(number), lines_end), (frames_file(number), pack_end)):
            path = folder / name
            if newest is None and path.exists():
                cut = bool(cut or shard.lines or path.stat().st_size)
                disk.remove(path)
            elif path.exists() and path.stat().st_size > end:
                cut = True
                disk.truncate(path, end)
        if newest is not None:
            moments, shards, episodes = newest + 1, number + 1, Moment.of(shard.lines[newest]).episode + 1
            break
    if remade or cut or meta.state != "closed" or meta.moments != moments:
        meta = replace(meta, state="recovered", moments=moments, ended_ns=meta.ended_ns or meta.created_ns)
        disk.sync_folder(folder)
        disk.write_whole(folder / META, meta.to_bytes())
    return Recovered(meta, moments, shards, episodes, cut)
