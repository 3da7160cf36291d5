-- wrk: post photos of a folder, one after the other, and count the answers by their status.
local photos, at = {}, 0

function setup(thread)
  threads = threads or {}
  table.insert(threads, thread)
end

function init(arguments)
  for path in io.lines(arguments[1]) do
    local file = assert(io.open(path, "rb"))
    table.insert(photos, file:read("*a"))
    file:close()
  end
  at = math.random(#photos)
  ok, refused, others = 0, 0, 0
end

function request()
  at = at % #photos + 1
  return wrk.format("POST", "/v1/search?k=10", { ["content-type"] = "image/jpeg" }, photos[at])
end

function response(status)
  if status == 200 then ok = ok + 1 elseif status == 429 then refused = refused + 1 else others = others + 1 end
end

function done(summary, latency, requests)
  local sums = { ok = 0, refused = 0, others = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format(
    '{"seconds": %f, "ok": %d, "refused": %d, "others": %d, "errors": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.duration / 1e6, sums.ok, sums.refused, sums.others, errors,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
