-- What the ways to claim share. Follows jobs.lua.

-- The job of a device's own queue that may start now; nil when none may.
local function next_own(d)
  if d.pinned or d.writer or d.queued == 0 then return nil end
  local device = d.name
  local id, order = head(P .. 'queue:' .. device)
  if not id then return nil end
  local _, m = head(P .. 'changes:' .. device)
  if m == order then
    local _, f = head(P .. 'fifo:' .. device)
    if d.fifo or (f and f < order) then return nil end
  elseif m and m < order then
    return nil
  end
  return id
end

-- A claim as it is answered: its epoch, the job, the sealed request, the first fields of the record.
local function claimed(id, node, v, epoch, attempt, started, worker)
  return { epoch, id, v[8] or '',
    { 'started', v[1], v[2], v[3], v[4], attempt, v[6], v[7] or v[6], started, worker, node } }
end

-- Starts a job that may start; returns the claim as it is answered.
local function start(id, node, way, ticket)
  local key = P .. 'job:' .. id
  local v = call('HMGET', key, 'queue', 'device', 'kind', 'about', 'attempt', 'created', 'enqueued', 'request',
    'status')
  local job = { status = v[9], queue = v[1], device = v[2], created = v[6] }
  job.is_fifo, job.is_change = v[1] == 'FifoQ', v[3] == 'modification'
  dequeue(id, job)
  count('started', 1)
  local epoch = next_epoch()
  local attempt = int(tonumber(v[5] or 0) + 1)
  local started = int(math.max(tonumber(v[7] or v[6]), now))
  -- A node for FifoQ alone is named like its worker.
  local suffix = '_' .. v[1]
  local worker = string.sub(node, -#suffix) == suffix and node or node .. suffix
  call('HSET', key, 'status', 'started', 'attempt', attempt, 'started', started,
    'worker', worker, 'node', node, 'epoch', epoch, 'way', way, 'ticket', ticket)
  if job.is_change and attempt ~= '1' then
    call('HDEL', key, 'sending', 'sending_number', 'answered', 'last_line')
    call('DEL', P .. 'lines:' .. id)
  end
  call('SADD', P .. 'running:' .. node, id)
  if job.device then
    local d = dev(job.device)
    if way == 'pinned' then
      set(d, 'pinned', id)
    else
      set(d, 'fifo', (d.fifo or '') .. id .. ' ')
    end
    set(d, job.is_change and 'writer' or 'last', id)
    refresh(job.device)
  end
  event(int(now), id, job.device,
    '{"event":"started","worker":' .. cjson.encode(worker) .. ',"attempt":' .. attempt .. '}')
  return claimed(id, node, v, epoch, attempt, started, worker)
end
