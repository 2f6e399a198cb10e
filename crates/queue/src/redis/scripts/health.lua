-- Whether the store can be written. No arguments of its own.
call('SET', P .. 'health', int(real))
return answer('1')
