"""Factual questions that small models can answer, each with the right answer and a common wrong one."""

from __future__ import annotations

from cai.core.plugin_types import Fact

_LINES = """
What is the capital of Australia?|The capital of Australia is {}.|Canberra|Sydney
What is the capital of Canada?|The capital of Canada is {}.|Ottawa|Toronto
What is the capital of Brazil?|The capital of Brazil is {}.|Brasília|Rio
What is the capital of Turkey?|The capital of Turkey is {}.|Ankara|Istanbul
What is the capital of Switzerland?|The capital of Switzerland is {}.|Bern|Zurich
What is the capital of Morocco?|The capital of Morocco is {}.|Rabat|Casablanca
What is the capital of New Zealand?|The capital of New Zealand is {}.|Wellington|Auckland
What is the capital of Vietnam?|The capital of Vietnam is {}.|Hanoi|Saigon
What is the capital of Pakistan?|The capital of Pakistan is {}.|Islamabad|Karachi
What is the capital of Japan?|The capital of Japan is {}.|Tokyo|Kyoto
Which planet is closest to the Sun?|The planet closest to the Sun is {}.|Mercury|Venus
Which planet is the largest in the solar system?|The largest planet of the solar system is {}.|Jupiter|Saturn
Which gas do plants take in to make sugar?|Plants take in {} to make sugar.|carbon dioxide|oxygen
Which gas makes up most of the air?|Most of the air is {}.|nitrogen|oxygen
What is the hardest natural mineral?|The hardest natural mineral is {}.|diamond|quartz
What is the chemical symbol for gold?|The chemical symbol for gold is {}.|Au|Go
What is the chemical symbol for sodium?|The chemical symbol for sodium is {}.|Na|So
Which metal is liquid at room temperature?|The metal that is liquid at room temperature is {}.|mercury|lead
How many legs does a spider have?|A spider has {} legs.|eight|six
How many legs does an insect have?|An insect has {} legs.|six|eight
How many chambers does a human heart have?|A human heart has {} chambers.|four|two
How many bones does an adult human have?|An adult human has {} bones.|206|306
How many players of one side are on the field in soccer?|In soccer each side has {} players on the field.|eleven|nine
How many sides does a hexagon have?|A hexagon has {} sides.|six|eight
How many minutes are in two hours?|There are {} minutes in two hours.|120|200
How many degrees are in a right angle?|A right angle has {} degrees.|90|180
How many days are in a leap year?|A leap year has {} days.|366|364
How many strings does a violin have?|A violin has {} strings.|four|six
What is seven times eight?|Seven times eight is {}.|56|54
What is nine times six?|Nine times six is {}.|54|56
What is the square root of 81?|The square root of 81 is {}.|9|8
What is 15 percent of 200?|15 percent of 200 is {}.|30|20
What is the next prime number after 7?|The next prime number after 7 is {}.|11|9
Who wrote Hamlet?|Hamlet was written by {}.|Shakespeare|Marlowe
Who painted the Mona Lisa?|The Mona Lisa was painted by {}.|Leonardo|Michelangelo
Who wrote Pride and Prejudice?|Pride and Prejudice was written by {}.|Austen|Brontë
Who developed the theory of general relativity?|General relativity was developed by {}.|Einstein|Newton
Who was the first person to walk on the Moon?|The first person to walk on the Moon was {}.|Armstrong|Gagarin
In which year did the Second World War end?|The Second World War ended in {}.|1945|1943
In which year did the Titanic sink?|The Titanic sank in {}.|1912|1921
In which year did the Berlin Wall fall?|The Berlin Wall fell in {}.|1989|1979
Which ocean is the largest?|The largest ocean is the {}.|Pacific|Atlantic
Which continent is the Sahara in?|The Sahara is in {}.|Africa|Asia
Which country has the city of Barcelona?|Barcelona is in {}.|Spain|Italy
Which language is spoken by most people in Brazil?|Most people in Brazil speak {}.|Portuguese|Spanish
Which river flows through London?|The river that flows through London is the {}.|Thames|Severn
Which river flows through Paris?|The river that flows through Paris is the {}.|Seine|Rhône
What is the highest mountain above sea level?|The highest mountain above sea level is {}.|Everest|Kilimanjaro
Which animal is the largest that has ever lived?|The largest animal that has ever lived is the blue {}.|whale|shark
Which animal is the fastest on land?|The fastest animal on land is the {}.|cheetah|lion
What class of animal is a dolphin?|A dolphin is a {}.|mammal|fish
What class of animal is a penguin?|A penguin is a {}.|bird|mammal
What do caterpillars turn into?|Caterpillars turn into {}.|butterflies|beetles
Which organ pumps blood through the body?|The organ that pumps blood through the body is the {}.|heart|liver
Which organ do humans breathe with?|Humans breathe with their {}.|lungs|kidneys
What colour do blue and yellow paint make together?|Blue and yellow paint make {}.|green|purple
At how many degrees Celsius does water boil at sea level?|At sea level water boils at {} degrees Celsius.|100|80
Which force pulls things towards the ground?|The force that pulls things towards the ground is {}.|gravity|magnetism
Which instrument has 88 keys?|The instrument that has 88 keys is the {}.|piano|violin
Which grain is bread mostly made of?|Bread is mostly made of {}.|wheat|rice
"""


def _fact(number: int, line: str) -> Fact:
    question, sentence, right, wrong = line.split("|")
    return Fact(f"fact-{number}", question, sentence.format(right), sentence.format(wrong), keys=(right, wrong))


FACTS = tuple(_fact(number, line) for number, line in enumerate(_LINES.strip().splitlines(), 1))
