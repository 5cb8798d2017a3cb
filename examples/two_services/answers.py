"""The service that asks the model. It knows what it does, and for whom only by what the gateway's requests carry."""

import os

import openai
from fastapi import Body, FastAPI

import tallystick
import tallystick.auto

app = FastAPI()
client = openai.OpenAI(base_url=os.environ["MODEL_URL"], api_key="no key is needed here")


@app.post("/chat")
@tallystick.scope(feature="chat", agent="planner")
def chat(question: str = Body(embed=True)) -> str:
    return asked("gpt-4o-mini", question)


@app.post("/summary")
@tallystick.scope(feature="summary")
def summary(text: str = Body(embed=True)) -> str:
    return asked("gpt-4o", f"Summarise: {text}")


def asked(model: str, content: str) -> str:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    return answer.choices[0].message.content or ""
