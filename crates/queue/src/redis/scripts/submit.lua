-- Accepts jobs, in this order.
-- ARGV[3]: '1' when these jobs may have been accepted before (the answer was lost).
-- ARGV[4]: '1' when nobody was asked yet to choose nodes.
-- ARGV[5..]: for each job ARGS values: id, queue, device, host, kind, rank, about, ttl, result_ttl, request,
--   notify, key, digest, chosen node, queued event.
-- Answer: for each job one text. 'A<time>' accepted then, 'K<id>' known, 'R<id>' the key was used for
--   another request, 'Q<number>' the store is full, 'D<number>' the device's queue is full,
--   'O<number>' the outbox is full (messages in it), 'P' no living node has its device, 'F' no living node serves FifoQ.
local again, blind = ARGV[3] == '1', ARGV[4] == '1'
local queued = call('ZCARD', P .. 'waiting')
local messages, promised = nil, 0
local seq = tonumber(call('GET', P .. 'seq') or 0)
local answers, accepted = {}, 0

-- The lists that the jobs go into, each written once for all of them.
local lists, lists_in_order = {}, {}
local function list(name, score, member)
  local l = lists[name]
  if not l then
    l = { 'ZADD', P .. name }
    lists[name], lists_in_order[#lists_in_order + 1] = l, l
  end
  local n = #l
  l[n + 1], l[n + 2] = score, member
end

local function known(key, digest)
  local kept = call('GET', P .. 'key:' .. key)
  if not kept then return nil end
  local id = string.sub(kept, 1, 36)
  local expires = call('HMGET', P .. 'job:' .. id, 'status', 'expires')
  if not expires[1] or (expires[2] and tonumber(expires[2]) <= now) then return nil end
  if string.sub(kept, 38) == digest then return 'K' .. id end
  return 'R' .. id
end

local alive = {}
local function lives(node)
  if alive[node] == nil then alive[node] = call('HGET', P .. 'node:' .. node, 'alive') == '1' end
  return alive[node]
end

-- Whether a living node has the device; takes the node that was chosen for it when none has.
local function placed(d, chosen)
  -- A dead node's lease is waited out: then a home is sought.
  if d.node and (d.epoch or lives(d.node)) then return true end
  if chosen == '' or call('SISMEMBER', P .. 'live:devices', chosen) == 0 then return false end
  if d.node then call('SREM', P .. 'given:' .. d.node, d.name) end
  give(d.name, chosen)
  return true
end

-- The values that every job has, in one table for all of them.
local job = { 'HSET', '', 'status', 'queued', 'queue', '', 'kind', '', 'about', '', 'created', '', 'order', '',
  'ttl', '', 'result_ttl', '', 'request', '', 'event', '' }
local fields = #job

for at = 5, #ARGV, ARGS do
  local id, queue, device, host, kind, rank, about, ttl, result_ttl, request, notify, key, digest, chosen, what =
    unpack(ARGV, at, at + ARGS - 1)
  local fifo = queue == 'FifoQ'
  local reply, d = nil, nil
  if again then
    local created = call('HGET', P .. 'job:' .. id, 'created')
    if created then reply = 'A' .. created end
  end
  if not reply and key ~= '' then reply = known(key, digest) end
  if not reply and queued >= MAX_QUEUED then reply = 'Q' .. int(queued) end
  if not reply and device ~= '' then
    d = dev(device)
    if d.queued >= MAX_DEVICE then reply = 'D' .. int(d.queued) end
  end
  if not reply and notify ~= '' then
    messages = messages or
      call('ZCARD', P .. 'outbox') + tonumber(call('HGET', P .. 'counts', 'promised') or 0)
    if messages + promised >= MAX_OUTBOX then reply = 'O' .. int(call('ZCARD', P .. 'outbox')) end
  end
  if not reply and PLACED then
    if blind and d and d.homeless then
      -- Its job before this one waits for a node to be chosen, and comes again: so does this one.
      reply = 'P'
    elseif fifo then
      if #live('fifo') == 0 then reply = 'F' end
    elseif not placed(d, chosen) then
      reply, d.homeless = 'P', true
    end
  end
  if not reply then
    seq = math.max(seq + 1, now)
    local created = int(seq)
    local order = int(tonumber(rank) * 3e15 + seq - 1577836800000000)
    job[2] = P .. 'job:' .. id
    job[6], job[8], job[10], job[12], job[14], job[16], job[18], job[20], job[22] =
      queue, kind, about, created, order, ttl, result_ttl, request, event(created, id, device, what)
    local n = fields
    if device ~= '' then
      job[n + 1], job[n + 2] = 'device', device
      n = n + 2
    end
    if notify ~= '' then
      job[n + 1], job[n + 2] = 'notify', notify
      n = n + 2
      promised = promised + 1
    end
    if key ~= '' then
      job[n + 1], job[n + 2] = 'key', key
      n = n + 2
      call('SET', P .. 'key:' .. key, id .. ' ' .. digest)
    end
    call(unpack(job, 1, n))
    list('jobs', created, id)
    list('waiting', created, id)
    list('timers', int(seq + tonumber(ttl)), 'j:' .. id)
    if host ~= '' then list('host:' .. host, created, id) end
    if fifo then list('fifo', order, id) end
    if device == '' then
      list('fifo-ready', order, id)
      tell_fifo()
    else
      list((fifo and 'fifo:' or 'queue:') .. device, order, id)
      if kind == 'modification' then list('changes:' .. device, order, id) end
      set(d, 'queued', d.queued + 1)
      d.touched = true
    end
    queued, accepted = queued + 1, accepted + 1
    reply = 'A' .. created
  end
  answers[#answers + 1] = reply
end

for _, l in ipairs(lists_in_order) do call(unpack(l)) end
if accepted > 0 then call('SET', P .. 'seq', int(seq)) end
if promised > 0 then count('promised', promised) end
return answer(answers)
