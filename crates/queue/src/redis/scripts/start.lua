-- What the two ways to claim share. Follows common.lua.

-- Starts a job that may start; returns the claim's epoch, the job and its record.
local function start(id, node, way, ticket)
  local job = load(id)
  dequeue(id, job)
  count('started', 1)
  local epoch = next_epoch()
  local started = math.max(tonumber(job.enqueued), now)
  local attempt = tonumber(job.attempt) + 1
  -- A node for FifoQ alone is named like its worker.
  local suffix = '_' .. job.queue
  local worker = string.sub(node, -#suffix) == suffix and node or node .. suffix
  local key = P .. 'job:' .. id
  call('HSET', key, 'status', 'started', 'attempt', attempt, 'started', int(started), 'worker', worker,
    'node', node, 'epoch', epoch, 'way', way, 'ticket', ticket)
  if job.sending or job.answered then
    call('HDEL', key, 'sending', 'sending_number', 'answered', 'last_line')
    call('DEL', P .. 'lines:' .. id)
  end
  call('SADD', P .. 'running:' .. node, id)
  if job.device then
    local device = P .. 'device:' .. job.device
    if way == 'pinned' then
      call('HSET', device, 'pinned', id)
    else
      call('HSET', device, 'fifo', (call('HGET', device, 'fifo') or '') .. id .. ' ')
    end
    if job.is_change then call('HSET', device, 'writer', id) end
    refresh(job.device)
  end
  event(now, id, job.device, '{"event":"started","worker":' .. cjson.encode(worker) .. ',"attempt":' .. attempt .. '}')
  return epoch, id, call('HMGET', key, unpack(RECORD))
end
