"""Writes the cases of the shared edge kit as seeds: edge.py TARGET KIT_FOLDER OUT_FOLDER."""
import hashlib, inspect, pathlib, sys

target, kit, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
sys.path.insert(0, kit)
if target == "http1_response_head":
    import chaos
    closures = [inspect.getclosurevars(fn).nonlocals for fn, _, _ in chaos.F.values()]
    inputs = [values["data"] for values in closures if "data" in values]
else:
    import h1_cases
    fill = {b"{P}": b"/v1/x", b"{H}": b"a.test", b"{A}": b""}
    inputs = []
    for case in h1_cases.CASES:
        raw = case["raw"]
        for name, value in fill.items():
            raw = raw.replace(name, value)
        head, _, body = raw.partition(b"\r\n\r\n")
        inputs.append(body if target == "http1_chunked" else head + b"\r\n\r\n")
for data in inputs:
    if 0 < len(data) < 4096:
        # The targets read their choices from the first byte.
        data = b"\x03" + data
        (out / ("edge-" + hashlib.sha1(data).hexdigest()[:16])).write_bytes(data)
