-- Puts a running job back that its worker gives up for now; one that is to be canceled ends.
-- ARGV[3] job, [4] the claim's epoch, [5] node, [6] nonce, [7] delay in microseconds, [8] reason,
-- [9] the same with its code (JSON).
-- Answer: '1' when it counts, '0' when the claim is stale or a modification has begun to send.
local id, epoch, node, nonce, delay, reason, why = unpack(ARGV, 3, 9)
local job = load(id)
if not job then return answer('0') end
if job.status ~= 'started' or job.epoch ~= epoch or job.node ~= node then
  return answer(job.nonce == nonce and '1' or '0')
end
if job.is_change and (job.sending_number or job.answered) then return answer('0') end
if job.cancel then
  free(id, job)
  end_canceled(id, job, job.cancel, nonce)
else
  put_back(id, job, tonumber(delay), reason, nonce)
  if tonumber(delay) > 0 then call('HSET', P .. 'job:' .. id, 'held', why) end
end
return answer('1')
