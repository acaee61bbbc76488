"""What a WAV file holds, compared with what its header says: read once in full, then cached."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import soundfile

from ..cache import file_facts

ENCODINGS = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
CLIPPED = 0.01  # share of samples at full scale from which a recording is remarked upon
LOWEST_RATE, HIGHEST_RATE, MOST_CHANNELS = 1000, 192000, 8
CHUNKS = (b"data", b"LIST", b"fact", b"bext", b"id3 ", b"cue ", b"PEAK", b"JUNK", b"smpl")
STREAMED = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # lengths that recorders write when they do not know the real one


def data_length(path: Path) -> tuple[int, int]:
    """Bytes of samples that a RIFF header states (-1: none are named), and bytes that follow it; (0, 0) for no RIFF."""
    with path.open("rb") as file:
        start, head = file.read(12), file.read(8)
        if start[:4] + start[8:] != b"RIFFWAVE":
            return 0, 0
        while len(head) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                return length, path.stat().st_size - file.tell()
            after = file.tell() + length
            file.seek(after)
            head = file.read(8)
            if length % 2 and head[:4] not in CHUNKS:  # some recorders leave out the byte that makes a length even
                file.seek(after + 1)
                head = file.read(8)
    return -1, 0


def examine(path: Path) -> dict:
    """Decode a recording in blocks.

    Returns
    -------
    dict
        rate [Hz], frames, sha256 of the decoded samples (little-endian int32, or float64 of a float file, so that two
        files with the same audio agree whatever else their headers hold), ``notes``: [what, done] of what was accepted
        with a remark, and ``unusable``: why the recording must be left out, or "".
    """
    found = {"rate": 0, "frames": 0, "sha256": "", "notes": [], "unusable": ""}
    try:
        length, present = data_length(path)
        if length < 0:
            return found | {"unusable": "its header names no samples"}
        if length > present and length not in STREAMED:
            return found | {"unusable": f"cut short: {present} of the {length} bytes that its header states"}
        with soundfile.SoundFile(path) as file:
            if file.format not in ("WAV", "WAVEX", "RF64") or file.subtype not in ENCODINGS:
                return found | {"unusable": f"holds {file.format} {file.subtype}, not PCM or float WAV"}
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE or file.channels > MOST_CHANNELS:
                return found | {"unusable": f"the header says {file.samplerate} Hz, {file.channels} channels"}
            return found | {"rate": file.samplerate} | _decode(file)
    except FileNotFoundError:
        return found | {"unusable": "has no .wav"}
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        return found | {"unusable": f"unreadable: {error}"}


def _decode(file: soundfile.SoundFile) -> dict:
    kind = "float64" if file.subtype in ("FLOAT", "DOUBLE") else "int32"
    digest, frames, broken, full, silent = hashlib.sha256(), 0, 0, 0, np.ones(file.channels, bool)
    limit = 0.999 if kind == "float64" else 0.999 * 2**31
    for block in file.blocks(1 << 16, dtype=kind, always_2d=True):
        digest.update(np.ascontiguousarray(block))
        frames += len(block)
        broken += int((~np.isfinite(block)).any(1).sum())
        full += int(((block >= limit) | (block <= -limit)).any(1).sum())
        silent &= ~block.any(0)
    if broken == frames:
        return {"unusable": "not one sample is finite" if frames else "holds no samples"}
    some = silent.any() and not silent.all()
    notes = [(broken, f"{broken} samples are not finite", "set to 0"),
             (silent.all(), "silent: every sample is 0", "kept"),
             (file.channels > 1, f"has {file.channels} channels", "averaged"),
             (some, f"channel {silent.argmax() + 1} of {file.channels} is silent", "not used"),
             (full > CLIPPED * frames, f"{full / frames:.0%} of the samples are at full scale: clipped", "kept")]
    notes = [[what, done] for applies, what, done in notes if applies]
    return {"frames": frames, "sha256": digest.hexdigest(), "notes": notes}


def examine_all(folder: Path, files: list[Path]) -> dict[Path, dict]:
    """``examine`` of every file of a folder; a file that has not changed since is not read again."""
    there = [file for file in files if file.is_file()]
    found = dict(zip(there, file_facts("recordings", folder, there, examine), strict=True))
    return {file: found.get(file) or examine(file) for file in files}
