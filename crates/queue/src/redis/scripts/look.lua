-- Nothing but what every answer begins with: the time and the next deadline.
return answer()
