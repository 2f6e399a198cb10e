-- What every script shares: time, numbers, events, signals, and who may start on a device.
--
-- Before it stand the engine's constants: P (what every key begins with), PLACED (whether a placer
-- chooses nodes), bounds and lifetimes in microseconds, and RECORD (the fields of a job that are read).
-- KEYS[1] is `jobs` for scripts that change jobs, `nodes` for those that change only nodes and leases.
-- ARGV[1]: microseconds that tests have pushed the clock forward.
-- ARGV[2]: the server's own time, in microseconds, after which the caller has given up; 0 means never.
-- Every answer begins with: the server's time, the next deadline or '', the id of the last event made or ''.
-- Numbers that stand for times go through `int`: Lua would write them as 1.7e+15.

local call = redis.call
local AHEAD, LIMIT = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = call('TIME')
local real = clock[1] * 1000000 + clock[2]
local now = real + AHEAD
-- A request that lay in a socket until nobody waited for it must not be done after all.
if LIMIT > 0 and real > LIMIT then
  return redis.error_reply(string.format('LATE %.0f the caller has given up', real))
end

local function int(n) return string.format('%.0f', n) end

-- Epochs follow the clock, so that none is used twice even when the server lost its last second.
local function next_epoch()
  local epoch = math.max(tonumber(call('GET', P .. 'epoch') or 0) + 1, real)
  call('SET', P .. 'epoch', int(epoch))
  return int(epoch)
end

local function count(what, by) call('HINCRBY', P .. 'counts', what, by) end

-- --- events ---------------------------------------------------------------------------------------

-- `event` holds the last event's number and how many bytes there have been.
local last_event, bytes_before, bytes = false, 0, 0

local function event(at, id, device, what)
  if not last_event then
    local number, size = string.match(call('GET', P .. 'event') or '', '(%d+) (%d+)')
    last_event, bytes_before = tonumber(number or real), tonumber(size or 0)
    bytes = bytes_before
  end
  last_event = last_event + 1
  bytes = bytes + #what + 150
  call('XADD', P .. 'events', 'MAXLEN', TRIM, EVENTS, int(last_event) .. '-0',
    'at', int(at), 'job', id, 'device', device or '', 'what', what)
end

-- Every mebibyte of events leaves a mark; behind the oldest mark kept they are cut off.
local function bound_events()
  call('SET', P .. 'event', int(last_event) .. ' ' .. int(bytes))
  if math.floor(bytes_before / 1048576) < math.floor(bytes / 1048576) then
    call('RPUSH', P .. 'event-marks', int(last_event))
    while call('LLEN', P .. 'event-marks') > EVENT_MARKS do
      call('XTRIM', P .. 'events', 'MINID', call('LPOP', P .. 'event-marks') .. '-0')
    end
  end
end

-- Ends every script: what the engine needs to know of time and events, then the script's own answer.
local function answer(...)
  if last_event then bound_events() end
  local first = call('ZRANGE', P .. 'timers', 0, 0, 'WITHSCORES')
  return { int(real), first[2] or '', last_event and int(last_event) or '', ... }
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

local fifo_told = false

local function tell_fifo()
  if fifo_told then return end
  fifo_told = true
  for _, node in ipairs(live('fifo')) do tell(node, 'fifo') end
end

-- A message of the outbox is due, perhaps later: the nodes are told when its time comes.
local function outbox_changed()
  local first = call('ZRANGE', P .. 'outbox', 0, 0, 'WITHSCORES')
  if not first[2] then
    call('ZREM', P .. 'timers', 'o:')
  elseif tonumber(first[2]) <= now then
    for _, role in ipairs({ 'devices', 'fifo' }) do
      for _, node in ipairs(live(role)) do tell(node, 'outbox') end
    end
    -- Those that are due have been told of; the timer is for the next one.
    local later = call('ZRANGEBYSCORE', P .. 'outbox', '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] then call('ZADD', P .. 'timers', later[2], 'o:') else call('ZREM', P .. 'timers', 'o:') end
  else
    call('ZADD', P .. 'timers', first[2], 'o:')
  end
end

-- --- devices --------------------------------------------------------------------------------------

local function unmap(device)
  if call('HGET', HOST_MAP, device) then call('HDEL', HOST_MAP, device) end
end

-- A device with jobs, but without a node: somebody has to choose one.
local function seek_home(device)
  call('SADD', P .. 'homeless', device)
  call('ZADD', P .. 'timers', int(now), 'h:' .. device)
end

-- Asks a node to give one of its idle devices back.
local function hand_over(node, device)
  call('SREM', P .. 'idle:' .. node, device)
  call('HDEL', P .. 'device:' .. device, 'idle')
  call('HSET', P .. 'device:' .. device, 'moving', 1)
  tell(node, 'h:' .. device)
end

-- Gives a device to a node that lives; a full node gives an idle one back for it.
local function give(device, node)
  call('HSET', P .. 'device:' .. device, 'node', node)
  call('HSET', HOST_MAP, device, node)
  call('SADD', P .. 'given:' .. node, device)
  call('SREM', P .. 'homeless', device)
  call('ZREM', P .. 'timers', 'h:' .. device)
  local owned = call('SCARD', P .. 'leases:' .. node) + call('SCARD', P .. 'given:' .. node)
  if owned > tonumber(call('HGET', P .. 'node:' .. node, 'capacity') or 0) then
    local idle = call('SRANDMEMBER', P .. 'idle:' .. node)
    if idle then hand_over(node, idle) end
  end
end

-- Room came free: devices without a node may find one.
local function room()
  if not PLACED then return end
  for _, device in ipairs(call('SRANDMEMBER', P .. 'homeless', 20)) do
    call('ZADD', P .. 'timers', int(now), 'h:' .. device)
  end
end

-- After any change of a device: says who may start now and tells the nodes. Modifications start
-- alone and in turn; queries of the two ways may overlap and overtake, but never a modification.
local function refresh(device)
  local key = P .. 'device:' .. device
  local v = call('HMGET', key, 'node', 'epoch', 'pinned', 'writer', 'fifo', 'entry', 'queued', 'ready', 'idle')
  local node, leased, pinned, writer, beside, entry, ready = v[1], v[2], v[3], v[4], v[5], v[6], v[8]
  local queued = tonumber(v[7] or 0)
  local wants, candidate, order = false, false, false
  if queued > 0 then
    local h = call('ZRANGE', P .. 'queue:' .. device, 0, 0, 'WITHSCORES')
    local f = call('ZRANGE', P .. 'fifo:' .. device, 0, 0, 'WITHSCORES')
    local m = call('ZRANGE', P .. 'changes:' .. device, 0, 0, 'WITHSCORES')
    local first_h, first_f, first_m = tonumber(h[2]), tonumber(f[2]), tonumber(m[2])
    local function may_start(o, own)
      if writer or (own and pinned) then return false end
      if first_m == o then
        return not pinned and not beside and o == math.min(first_h or o, first_f or o)
      end
      return not first_m or first_m > o
    end
    wants = first_h and may_start(first_h, true)
    if first_f and may_start(first_f, false) then candidate, order = f[1], f[2] end
  end
  if candidate ~= entry then
    if entry then call('ZREM', P .. 'fifo-ready', entry) end
    if candidate then
      call('ZADD', P .. 'fifo-ready', order, candidate)
      call('HSET', key, 'entry', candidate)
    else
      call('HDEL', key, 'entry')
    end
  end
  if candidate then tell_fifo() end
  if wants and not leased then
    if not ready then
      call('SADD', P .. 'ready', device)
      call('HSET', key, 'ready', 1)
    end
  elseif ready then
    call('SREM', P .. 'ready', device)
    call('HDEL', key, 'ready')
  end
  if wants then
    if leased or node then
      tell(node, 'd:' .. device)
    elseif PLACED then
      seek_home(device)
    else
      for _, other in ipairs(live('devices')) do tell(other, 'd:' .. device) end
    end
  end
  local nothing = queued == 0 and not pinned and not writer and not beside
  if nothing and not leased then
    if node then
      call('SREM', P .. 'given:' .. node, device)
      unmap(device)
    end
    if PLACED then call('SREM', P .. 'homeless', device) end
    call('DEL', key)
  elseif PLACED and leased then
    -- Which of its devices a node could give away.
    if nothing and not v[9] then
      call('SADD', P .. 'idle:' .. node, device)
      call('HSET', key, 'idle', 1)
    elseif not nothing and v[9] then
      call('SREM', P .. 'idle:' .. node, device)
      call('HDEL', key, 'idle')
    end
  end
end

-- --- waiting --------------------------------------------------------------------------------------

-- Puts a job that is counted as queued into its queue. The caller refreshes its device.
local function enqueue(id, device, fifo, order, change, deadline)
  call('ZADD', P .. 'timers', int(deadline), 'e:' .. id)
  if fifo then call('ZADD', P .. 'fifo', order, id) end
  if device then
    call('ZADD', P .. (fifo and 'fifo:' or 'queue:') .. device, order, id)
    if change then call('ZADD', P .. 'changes:' .. device, order, id) end
  else
    call('ZADD', P .. 'fifo-ready', order, id)
    tell_fifo()
  end
end

-- A job waits, for its turn or its time (`by` is 1), or no more (-1).
local function count_queued(id, job, by)
  count('queued', by)
  if by > 0 then call('ZADD', P .. 'waiting', job.created, id) else call('ZREM', P .. 'waiting', id) end
  if job.device then call('HINCRBY', P .. 'device:' .. job.device, 'queued', by) end
end

local NAMES = { 'status', 'kind', 'queue', 'device', 'order', 'created', 'enqueued', 'started', 'attempt',
  'ttl', 'result_ttl', 'node', 'epoch', 'way', 'lost', 'cancel', 'notify', 'key', 'nonce', 'sending',
  'sending_number', 'answered', 'last_line', 'attempts' }

-- The fields of a job that decide; nil when there is no such job.
local function load(id)
  local values = call('HMGET', P .. 'job:' .. id, unpack(NAMES))
  if not values[1] then return nil end
  local job = {}
  for n, name in ipairs(NAMES) do job[name] = values[n] or nil end
  job.enqueued, job.attempt = job.enqueued or job.created, job.attempt or '0'
  job.is_fifo = job.queue == 'FifoQ'
  job.is_change = job.kind == 'modification'
  return job
end

-- The host of a device: `host`, `host:port` or `[v6]:port`.
local function host_of(device)
  local v6 = string.match(device, '^%[(.-)%]')
  if v6 then return v6 end
  local name = string.match(device, '^([^:]*):[^:]*$')
  return name or device
end

-- Strikes a job off the lists.
local function unlist(id, job)
  call('ZREM', P .. 'jobs', id)
  if job.device then call('ZREM', P .. 'host:' .. host_of(job.device), id) end
end

-- Takes a waiting or delayed job out; it is no longer counted as queued.
local function dequeue(id, job)
  count_queued(id, job, -1)
  if job.status == 'scheduled' then
    call('ZREM', P .. 'timers', 'd:' .. id)
    return
  end
  call('ZREM', P .. 'timers', 'e:' .. id)
  if job.is_fifo then call('ZREM', P .. 'fifo', id) end
  if job.device then
    call('ZREM', P .. (job.is_fifo and 'fifo:' or 'queue:') .. job.device, id)
    if job.is_change then call('ZREM', P .. 'changes:' .. job.device, id) end
  else
    call('ZREM', P .. 'fifo-ready', id)
  end
end

-- Takes a running job off its node and device. The caller refreshes the device.
local function free(id, job)
  count('started', -1)
  call('SREM', P .. 'running:' .. job.node, id)
  call('SREM', P .. 'wake:' .. job.node, 'c:' .. id)
  if not job.device then return end
  local key = P .. 'device:' .. job.device
  if job.way == 'pinned' then
    call('HDEL', key, 'pinned')
  else
    local left = string.gsub(call('HGET', key, 'fifo') or '', string.gsub(id, '%-', '%%-') .. ' ', '')
    if left == '' then call('HDEL', key, 'fifo') else call('HSET', key, 'fifo', left) end
  end
  if job.is_change then call('HDEL', key, 'writer') end
end

-- A slot came free: another job of FifoQ may start.
local function after_free()
  if call('EXISTS', P .. 'fifo-ready') == 1 then tell_fifo() end
end
