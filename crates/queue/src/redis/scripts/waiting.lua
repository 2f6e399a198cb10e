-- Why a job waits. ARGV[3] job.
-- Answer: nothing when it does not wait; else how many go before it, the job that holds its device, when
-- it is due, its node, who is missing when nobody can run it, why it is held.
local job = load(ARGV[3])
if not job then return answer() end
if job.status == 'scheduled' then
  local v = call('HMGET', P .. 'job:' .. ARGV[3], 'due', 'held')
  return answer('0', '', v[1] or '', '', '', v[2] or '')
end
if job.status ~= 'queued' then return answer() end
local ahead, behind, node, homeless = 0, '', '', ''
if job.is_fifo then
  ahead = call('ZCOUNT', P .. 'fifo', '-inf', '(' .. job.order)
else
  ahead = call('ZCOUNT', P .. 'queue:' .. job.device, '-inf', '(' .. job.order)
end
if job.device then
  local v = call('HMGET', P .. 'device:' .. job.device, 'node', 'pinned', 'writer', 'fifo')
  node, behind = v[1] or '', v[3] or v[2] or string.sub(v[4] or '', 1, 36)
end
if PLACED then
  if job.is_fifo then
    if #live('fifo') == 0 then homeless = 'f' end
  elseif node == '' then
    homeless = #live('devices') == 0 and 'n' or 'c'
  end
end
return answer(tostring(ahead), behind, '', node, homeless)
