-- How jobs end: by completion, cancel, expiry, or because their worker was lost. Follows jobs.lua.

-- How long an end is kept. What a modification did outlives what a query said.
local function keep_for(job, status)
  local own = tonumber(job.result_ttl)
  if job.is_change and (job.started or status ~= 'canceled') then return math.max(AUDIT, own) end
  if status == 'canceled' then return math.max(CANCELED, own) end
  return own
end

-- Should no engine live when its time comes, the server forgets it by itself.
local function keep_until(id, idempotency_key, expires)
  local day = int(math.floor((expires - AHEAD) / 1000) + 86400000)
  call('PEXPIREAT', P .. 'job:' .. id, day)
  if idempotency_key then call('PEXPIREAT', P .. 'key:' .. idempotency_key, day) end
end

-- Messages made by this script: they keep the order of their ends.
local messages = 0

-- Ends a job that holds nothing any more. `what` is the event, `result` the result, both JSON.
local function finish(id, job, status, result, what, nonce)
  local key = P .. 'job:' .. id
  local at = math.max(tonumber(job.started or job.created), now)
  local ended, expires = int(at), at + keep_for(job, status)
  call('HSET', key, 'status', status, 'result', result, 'ended', ended, 'expires', int(expires),
    'nonce', nonce or '')
  if job.is_change then
    call('HDEL', key, 'request', 'due', 'held', 'cancel', 'epoch', 'way', 'ticket', 'noted', 'sending', 'sending_number',
      'answered', 'last_line')
    call('DEL', P .. 'lines:' .. id)
  else
    call('HDEL', key, 'request', 'due', 'held', 'cancel', 'epoch', 'way', 'ticket')
  end
  call('ZADD', P .. 'timers', int(expires), 'j:' .. id)
  count(status, 1)
  event(ended, id, job.device, what)
  if job.notify then
    -- The message goes out in the same step that ends the job; the hash stays until it is delivered.
    messages = messages + 1
    count('promised', -1)
    call('HSET', key, 'attempts', 0)
    call('ZADD', P .. 'outbox', int(now + messages - 1), id)
    outbox_changed()
  else
    keep_until(id, job.key, expires)
  end
  call('PUBLISH', P .. 'ended', id)
  if job.device then refresh(job.device) end
  after_free()
end

local function end_with(id, job, status, number, code, message, outcome, lines, nonce)
  local text = cjson.encode(message)
  local outcome_part = outcome and (',"outcome":"' .. outcome .. '"') or ''
  local result = '{"type":' .. number .. ',"retval":' .. (lines or 'null') .. ',"error":{"type":"' .. code
    .. '","message":' .. text .. '}' .. outcome_part .. '}'
  local what = '{"event":"ended","status":"' .. status .. '"' .. outcome_part .. ',"message":' .. text .. '}'
  finish(id, job, status, result, what, nonce)
end

local function fail(id, job, code, message, outcome, lines)
  end_with(id, job, 'failed', 2, code, message, outcome, lines)
end

local function end_canceled(id, job, reason, nonce)
  local when = job.started and 'after its worker was lost' or 'before it started'
  local why = (reason and reason ~= '') and (': ' .. reason) or ''
  end_with(id, job, 'canceled', 3, 'canceled', 'canceled ' .. when .. why, job.is_change and 'not_applied',
    nil, nonce)
end

-- A job has waited longer than its ttl.
local function expire(id, job)
  dequeue(id, job)
  local message = string.format(
    'job expired in queue: it waited %.14g s (its ttl) and was never started', tonumber(job.ttl) / 1e6)
  fail(id, job, 'expired_in_queue', message, job.is_change and 'not_applied')
end

-- Puts a running job back, at its old place, after `delay` microseconds.
local function put_back(id, job, delay, reason, nonce)
  local key = P .. 'job:' .. id
  free(id, job)
  count_queued(id, job, 1)
  call('HDEL', key, 'started', 'worker', 'node', 'epoch', 'way', 'ticket', 'noted')
  if nonce then call('HSET', key, 'nonce', nonce) end
  event(int(now), id, job.device, '{"event":"retrying","reason":' .. cjson.encode(reason) .. ',"attempt":'
    .. int(tonumber(job.attempt) + 1) .. ',"delay":' .. string.format('%.14g', delay / 1e6) .. '}')
  if delay > 0 then
    call('HSET', key, 'status', 'scheduled', 'enqueued', int(now), 'due', int(now + delay))
    call('ZADD', P .. 'timers', int(now + delay), 'j:' .. id)
  else
    call('HSET', key, 'status', 'queued', 'enqueued', int(now))
    enqueue(id, job.device, job.is_fifo, job.order, job.is_change, now + tonumber(job.ttl))
  end
  if job.device then refresh(job.device) end
  after_free()
end

-- A delayed job's time has come.
local function due(id, job)
  call('HSET', P .. 'job:' .. id, 'status', 'queued', 'enqueued', int(now))
  call('HDEL', P .. 'job:' .. id, 'due', 'held')
  enqueue(id, job.device, job.is_fifo, job.order, job.is_change, now + tonumber(job.ttl))
  if job.device then refresh(job.device) end
end

-- Decides what becomes of a running job whose worker is gone. `vouched`: the process that ran it
-- says that every note it made has arrived and that it sends nothing more.
local function settle(id, vouched)
  local job = load(id)
  if not job or job.status ~= 'started' then return end
  local lost = tonumber(job.lost or 0) + 1
  call('HSET', P .. 'job:' .. id, 'lost', lost)
  if job.is_change then
    local answered, outcome, message = tonumber(job.answered or 0), 'unknown', nil
    local look = ': look at the device before pushing again'
    if job.sending_number then
      message = 'its worker was lost; the last line known sent is number ' .. job.sending_number .. ' `'
        .. job.sending .. '`, whose answer is not known' .. look
    elseif answered > 0 then
      message = 'its worker was lost; the last line known sent is number ' .. answered .. ' `' .. job.last_line
        .. '`, which was answered' .. look
    elseif vouched then
      outcome, message = 'not_applied', 'its worker was lost before a line was sent: nothing was changed'
    else
      -- Notes are not waited for, so their absence proves nothing when a process ended.
      message = 'its worker was lost while it ran, and no line is known to have been sent' .. look
    end
    local lines = call('LRANGE', P .. 'lines:' .. id, 0, -1)
    local list = #lines > 0 and ('[' .. table.concat(lines, ',') .. ']') or nil
    free(id, job)
    fail(id, job, 'worker_lost', message, outcome, list)
  elseif job.cancel then
    free(id, job)
    end_canceled(id, job, job.cancel)
  elseif lost >= LOST_WORKERS then
    free(id, job)
    fail(id, job, 'worker_lost', LOST_WORKERS
      .. ' workers were lost while they ran it; it may be what ends them, so it is not tried again')
  else
    put_back(id, job, 0, 'its worker was lost')
  end
end

-- Ends a node's leases and settles its jobs, at most `limit` of each; true when nothing is left.
local function take_all(node, vouched, limit)
  local key = P .. 'node:' .. node
  if call('HGET', key, 'alive') == '1' then
    call('HSET', key, 'alive', 0)
    call('SREM', P .. 'live:devices', node)
    call('SREM', P .. 'live:fifo', node)
    call('HDEL', NODE_MAP, node)
    live_nodes = {}
  end
  for _, id in ipairs(call('SRANDMEMBER', P .. 'running:' .. node, limit)) do settle(id, vouched) end
  for _, device in ipairs(call('SRANDMEMBER', P .. 'leases:' .. node, limit)) do
    local d = dev(device)
    local epoch = d.epoch
    call('SREM', P .. 'leases:' .. node, device)
    call('SREM', P .. 'idle:' .. node, device)
    for _, field in ipairs({ 'node', 'epoch', 'moving', 'idle' }) do set(d, field, false) end
    unmap(device)
    if epoch then
      call('ZADD', P .. 'lost:' .. node, next_epoch(), epoch .. ' ' .. device)
      call('PUBLISH', P .. 'signal:' .. node, 'l:' .. epoch .. ' ' .. device)
    end
    refresh(device)
  end
  for _, device in ipairs(call('SRANDMEMBER', P .. 'given:' .. node, limit)) do
    call('SREM', P .. 'given:' .. node, device)
    set(dev(device), 'node', false)
    unmap(device)
    refresh(device)
  end
  arrange_all()
  if call('EXISTS', P .. 'running:' .. node, P .. 'leases:' .. node, P .. 'given:' .. node) > 0 then
    return false
  end
  for _, worker in ipairs(call('SMEMBERS', P .. 'workers:' .. node)) do call('HDEL', P .. 'workers', worker) end
  call('DEL', P .. 'workers:' .. node, P .. 'wake:' .. node)
  return true
end

-- The time of an end that was kept is over.
local function forget(id, job)
  count(job.status, -1)
  unlist(id, job)
  if job.key and call('GET', P .. 'key:' .. job.key) and
    string.sub(call('GET', P .. 'key:' .. job.key), 1, 36) == id then
    call('DEL', P .. 'key:' .. job.key)
  end
  if job.attempts then
    -- Its message is still to be delivered: nobody else sees it any more.
    call('HSET', P .. 'job:' .. id, 'hidden', 1)
  else
    call('DEL', P .. 'job:' .. id)
  end
end

-- A job's entry in `timers` has come: what that means, its state says. One that runs has none that counts.
local function job_is_due(id)
  local job = load(id)
  if not job or not job.result_ttl then return end
  if job.status == 'queued' then
    expire(id, job)
  elseif job.status == 'scheduled' then
    due(id, job)
  elseif job.status ~= 'started' then
    forget(id, job)
  end
end
