-- Accepts jobs, in this order.
-- ARGV[3]: '1' when these jobs may have been accepted before (the answer was lost).
-- ARGV[4..]: for each job ARGS values: id, queue, device, host, kind, priority, rank, driver, name,
--   command, ttl, timeout, result_ttl, retry, request, notify, key, digest, chosen node, queued event.
-- Answer: for each job one text. 'A<time>' accepted then, 'K<id>' known, 'R<id>' the key was used for
--   another request, 'Q<number>' the store is full, 'D<number>' the device's queue is full,
--   'O<number>' the outbox is full (messages in it), 'P' no living node has its device, 'F' no living node serves FifoQ.
local again = ARGV[3] == '1'
local counts = call('HMGET', P .. 'counts', 'queued', 'promised')
local queued, promised, promised_before = tonumber(counts[1] or 0), tonumber(counts[2] or 0), tonumber(counts[2] or 0)
local messages = false
local seq = tonumber(call('GET', P .. 'seq') or 0)
local answers, touched, touched_list, added = {}, {}, {}, 0

local function known(key, digest)
  local kept = call('GET', P .. 'key:' .. key)
  if not kept then return nil end
  local id = string.sub(kept, 1, 36)
  local expires = call('HMGET', P .. 'job:' .. id, 'status', 'expires')
  if not expires[1] or (expires[2] and tonumber(expires[2]) <= now) then return nil end
  if string.sub(kept, 38) == digest then return 'K' .. id end
  return 'R' .. id
end

-- Whether a living node has the device; takes the node that was chosen for it when none has.
local function placed(device, info, chosen)
  if info.node then
    if call('HGET', P .. 'node:' .. info.node, 'alive') == '1' then return true end
    -- A dead node's lease is waited out: then a home is sought.
    if call('HEXISTS', P .. 'device:' .. device, 'epoch') == 1 then return true end
  end
  if chosen == '' or call('SISMEMBER', P .. 'live:devices', chosen) == 0 then return false end
  if info.node then call('SREM', P .. 'given:' .. info.node, device) end
  give(device, chosen)
  info.node = chosen
  return true
end

for at = 4, #ARGV, ARGS do
  local id, queue, device, host, kind, priority, rank, driver, name, command, ttl, timeout, result_ttl,
    retry, request, notify, key, digest, chosen, what = unpack(ARGV, at, at + ARGS - 1)
  local fifo = queue == 'FifoQ'
  local reply = nil
  if again then
    local created = call('HGET', P .. 'job:' .. id, 'created')
    if created then reply = 'A' .. created end
  end
  if not reply and key ~= '' then reply = known(key, digest) end
  if not reply and queued >= MAX_QUEUED then reply = 'Q' .. int(queued) end
  local info = nil
  if not reply and device ~= '' then
    info = touched[device]
    if not info then
      local v = call('HMGET', P .. 'device:' .. device, 'queued', 'node')
      info = { before = tonumber(v[1] or 0), new = 0, node = v[2] }
      touched[device] = info
      touched_list[#touched_list + 1] = device
    end
    if info.before + info.new >= MAX_DEVICE then reply = 'D' .. int(info.before + info.new) end
  end
  if not reply and notify ~= '' then
    messages = messages or call('ZCARD', P .. 'outbox')
    if messages + promised >= MAX_OUTBOX then reply = 'O' .. int(messages) end
  end
  if not reply and PLACED then
    if fifo then
      if #live('fifo') == 0 then reply = 'F' end
    elseif not placed(device, info, chosen) then
      reply = 'P'
    end
  end
  if not reply then
    seq = math.max(seq + 1, now)
    local created = int(seq)
    local order = int(tonumber(rank) * 3e15 + seq - 1577836800000000)
    local job = { 'HSET', P .. 'job:' .. id, 'status', 'queued', 'queue', queue, 'kind', kind, 'priority', priority,
      'order', order, 'created', created, 'driver', driver, 'command', command, 'ttl', ttl,
      'timeout', timeout, 'result_ttl', result_ttl, 'retry', retry, 'request', request }
    local function field(field_name, value)
      if value ~= '' then
        job[#job + 1] = field_name
        job[#job + 1] = value
      end
    end
    field('device', device)
    field('name', name)
    field('notify', notify)
    field('key', key)
    event(seq, id, device, what)
    field('event', int(last_event))
    call(unpack(job))
    call('ZADD', P .. 'jobs', created, id)
    call('ZADD', P .. 'waiting', created, id)
    if host ~= '' then call('ZADD', P .. 'host:' .. host, created, id) end
    if key ~= '' then call('SET', P .. 'key:' .. key, id .. ' ' .. digest) end
    enqueue(id, device ~= '' and device, fifo, order, kind == 'modification', seq + tonumber(ttl))
    queued, added = queued + 1, added + 1
    if notify ~= '' then promised = promised + 1 end
    if info then info.new = info.new + 1 end
    reply = 'A' .. created
  end
  answers[#answers + 1] = reply
end

if added > 0 then
  count('queued', added)
  if promised > promised_before then count('promised', promised - promised_before) end
  call('SET', P .. 'seq', int(seq))
  for _, device in ipairs(touched_list) do
    local new = touched[device].new
    if new > 0 then
      call('HINCRBY', P .. 'device:' .. device, 'queued', new)
      refresh(device)
    end
  end
end
return answer(answers)
