-- What every script shares: time, numbers, events, signals.
--
-- Before it stand the engine's constants: P (what every key begins with), PLACED (whether a placer
-- chooses nodes), bounds and lifetimes in microseconds, and RECORD (the fields of a job that are read).
-- KEYS[1] is `jobs` for scripts that change jobs, `nodes` for those that change only nodes and leases.
-- ARGV[1]: microseconds that tests have pushed the clock forward.
-- ARGV[2]: the server's own time, in microseconds, after which the caller has given up; 0 means never.
-- Every answer begins with: the server's time, the next deadline or '', the id of the last event made or ''.
-- Numbers that stand for times go through `int`: Lua would write them as 1.7e+15.
--
-- Calls are what a script's time goes into, those that write most of all (each goes into the
-- append-only file too). So what a script changes of a device or a count is gathered and written once,
-- at its end, and a script includes no more parts than it needs: each costs as often as it runs.

local call, format = redis.call, string.format
local AHEAD, LIMIT = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = call('TIME')
local real = clock[1] * 1000000 + clock[2]
local now = real + AHEAD
-- A request that lay in a socket until nobody waited for it must not be done after all.
if LIMIT > 0 and real > LIMIT then
  return redis.error_reply(string.format('LATE %.0f the caller has given up', real))
end

local function int(n) return format('%d', n) end

-- Epochs follow the clock, so that none is used twice even when the server lost its last second.
local function next_epoch()
  local epoch = int(real)
  local last = tonumber(call('SET', P .. 'epoch', epoch, 'GET') or 0)
  if last >= real then
    epoch = int(last + 1)
    call('SET', P .. 'epoch', epoch)
  end
  return epoch
end

local counted = {}

local function count(what, by) counted[what] = (counted[what] or 0) + by end

-- What is written once, at the end of a script.
local at_the_end = {}

-- --- events ---------------------------------------------------------------------------------------

-- Their ids are 0-N, where N goes up by one with each.
local last_event, made, bytes = false, 0, 0

-- Returns the event's number.
local function event(at, id, device, what)
  local function add(number)
    return string.sub(call('XADD', P .. 'events', '0-' .. number,
      'at', at, 'job', id, 'device', device or '', 'what', what), 3)
  end
  last_event = add('*')
  if last_event == '1' then
    -- A new stream goes on where the clock stands, so that numbers grow even over a loss of all data.
    call('DEL', P .. 'events')
    last_event = add(int(real))
  end
  made, bytes = made + 1, bytes + #what + 150
  return last_event
end

-- Every mebibyte of events leaves a mark; behind the oldest mark kept they are cut off.
local function bound_events()
  local last, so_far = tonumber(last_event), call('INCRBY', P .. 'event-bytes', bytes)
  -- Cutting now and then, in whole blocks, is cheaper, where a hundred more do no harm.
  if TRIM == '=' or math.floor(last / 64) > math.floor((last - made) / 64) then
    call('XTRIM', P .. 'events', 'MAXLEN', TRIM, EVENTS)
  end
  if math.floor((so_far - bytes) / 1048576) < math.floor(so_far / 1048576) then
    call('RPUSH', P .. 'event-marks', last_event)
    while call('LLEN', P .. 'event-marks') > EVENT_MARKS do
      call('XTRIM', P .. 'events', 'MINID', '0-' .. call('LPOP', P .. 'event-marks'))
    end
  end
end

-- Ends every script: what the engine needs to know of time and events, then the script's own answer.
local function answer(...)
  for _, write in ipairs(at_the_end) do write() end
  for what, by in pairs(counted) do
    if by ~= 0 then call('HINCRBY', P .. 'counts', what, by) end
  end
  if last_event then bound_events() end
  local first = call('ZRANGE', P .. 'timers', '0', '0', 'WITHSCORES')
  return { int(real), first[2] or '', last_event or '', ... }
end

-- --- signals --------------------------------------------------------------------------------------

-- Tells a node something, once until it asks or the cause is gone. The set remembers it when the
-- message is lost: renewing reads it again.
local function tell(node, signal)
  if call('SADD', P .. 'wake:' .. node, signal) == 1 then
    call('PUBLISH', P .. 'signal:' .. node, signal)
  end
end

local live_nodes = {}

local function live(role)
  if not live_nodes[role] then live_nodes[role] = call('SMEMBERS', P .. 'live:' .. role) end
  return live_nodes[role]
end
