-- Takes back jobs whose acceptance could not be confirmed to whoever submitted them.
-- ARGV[3..]: jobs. Only those that were never started go. Answer: how many.
local gone = 0
for at = 3, #ARGV do
  local id = ARGV[at]
  local job = load(id)
  if job and job.status == 'queued' and job.attempt == '0' then
    dequeue(id, job)
    unlist(id, job)
    call('ZREM', P .. 'timers', 'j:' .. id)
    if job.key then call('DEL', P .. 'key:' .. job.key) end
    if job.notify then count('promised', -1) end
    call('DEL', P .. 'job:' .. id)
    event(int(now), id, job.device,
      '{"event":"ended","status":"canceled","message":"its acceptance could not be confirmed in time"}')
    if job.device then refresh(job.device) end
    gone = gone + 1
  end
end
return answer(tostring(gone))
